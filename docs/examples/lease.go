// Asks redirector for the listeners of a namespace, and serves from them.
//
//	go run lease.go /run/redirector/handoff.sock netns:web tcp:80
//
// The rule is in force until this process ends. The standard library is enough.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net"
	"os"
	"syscall"
)

const longestMessage = 64 * 1024

type request struct {
	Target string   `json:"target"`
	Match  []string `json:"match"`
}

type answer struct {
	Rule  string `json:"rule"`
	Error *struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	} `json:"error"`
}

// lease sends a request and returns the name of the rule and the listeners, IPv4 first.
func lease(path string, want request) (string, []net.Listener, error) {
	connection, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		return "", nil, err
	}
	defer connection.Close()
	document, err := json.Marshal(want)
	if err != nil {
		return "", nil, err
	}
	if _, err := connection.Write(document); err != nil {
		return "", nil, err
	}
	message := make([]byte, longestMessage)
	ancillary := make([]byte, syscall.CmsgSpace(8*4))
	length, ancillaryLength, _, _, err := connection.ReadMsgUnix(message, ancillary)
	if err != nil {
		return "", nil, err
	}
	listeners, err := receive(ancillary[:ancillaryLength])
	if err != nil {
		return "", nil, err
	}
	var got answer
	if err := json.Unmarshal(message[:length], &got); err != nil {
		return "", nil, err
	}
	if got.Error != nil {
		return "", nil, errors.New(got.Error.Code + ": " + got.Error.Message)
	}
	return got.Rule, listeners, nil
}

func receive(ancillary []byte) ([]net.Listener, error) {
	parts, err := syscall.ParseSocketControlMessage(ancillary)
	if err != nil {
		return nil, err
	}
	var listeners []net.Listener
	for _, part := range parts {
		fds, err := syscall.ParseUnixRights(&part)
		if err != nil {
			return nil, err
		}
		for _, fd := range fds {
			// FileListener makes a duplicate: the slot is empty when both are closed.
			file := os.NewFile(uintptr(fd), "listener")
			listener, err := net.FileListener(file)
			file.Close()
			if err != nil {
				return nil, err
			}
			listeners = append(listeners, listener)
		}
	}
	return listeners, nil
}

func serve(listener net.Listener) {
	for {
		connection, err := listener.Accept()
		if err != nil {
			log.Fatal(err)
		}
		fmt.Fprintf(connection, "%v reached %v\n", connection.RemoteAddr(), connection.LocalAddr())
		connection.Close()
	}
}

func main() {
	if len(os.Args) != 4 {
		log.Fatal("usage: lease HANDOFF_SOCKET TARGET MATCH")
	}
	rule, listeners, err := lease(os.Args[1], request{Target: os.Args[2], Match: []string{os.Args[3]}})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("rule", rule)
	for _, listener := range listeners[1:] {
		go serve(listener)
	}
	serve(listeners[0])
}
