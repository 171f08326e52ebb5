//! Words of documents: what a field can say that has one of a few values.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{matcher::Miss, netns::By};

/// The result of `detach`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DetachResult {
    /// The rules are gone.
    Detached,
}

/// The result of `close`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CloseResult {
    /// The connections are reset, if there were any.
    Closed,
}

/// Is a namespace steered?
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NamespaceState {
    /// Its rules decide.
    Steered,
    /// The kernel says that our link is gone.
    Detached,
    /// Only a file was asked, and no namespace.
    File,
}

impl fmt::Display for NamespaceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Steered => "steered",
            Self::Detached => "detached",
            Self::File => "file",
        })
    }
}

/// Does the destination of a rule answer?
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Availability {
    /// As far as is known.
    Up,
    /// It does not.
    Down,
}

impl fmt::Display for Availability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Up => "up",
            Self::Down => "down",
        })
    }
}

/// Where the rules of discovered containers stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RulesIn {
    /// In the file.
    File,
    /// In labels of the container.
    Labels,
}

/// Whose socket a rule takes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BystanderKind {
    /// It has a TCP-MD5 key for the client, which no listener of redirector's has.
    TcpMd5,
    /// It is the name server that Docker has put into the container.
    DockerDns,
}

/// How it is known by which interface a packet comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IngressBy {
    /// The flow names it.
    Named,
    /// It is not known: only a file was asked.
    Unknown,
    /// The source is an address of the namespace.
    Inside,
    /// An answer would go by it.
    Assumed,
}

impl From<By> for IngressBy {
    fn from(by: By) -> Self {
        match by {
            By::Named => Self::Named,
            By::Inside => Self::Inside,
            By::Assumed => Self::Assumed,
        }
    }
}

/// Who has decided about a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decider {
    /// The program in the kernel, by a test run.
    Kernel,
    /// The same rule in user space.
    RuleSet,
}

/// What a socket is that gets a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SocketKind {
    /// The relay's listener.
    Listener,
    /// A program's listener.
    HandOff,
    /// It takes nothing.
    BlackHole,
    /// Somebody else has put it there.
    Other,
}

/// Why a rule did not take a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReasonKind {
    /// The rule is for another protocol.
    Protocol,
    /// The rule is for different addresses.
    Address,
    /// The rule is for different ports.
    Port,
    /// The rule is for different clients.
    Client,
    /// An exception of the rule leaves the packet out.
    Exception,
    /// The rule is for different interfaces.
    Interface,
    /// The rule takes the packet too, and comes later.
    Order,
}

impl From<Miss> for ReasonKind {
    fn from(why: Miss) -> Self {
        match why {
            Miss::Protocol => Self::Protocol,
            Miss::Address => Self::Address,
            Miss::Port => Self::Port,
            Miss::Client => Self::Client,
            Miss::Exception(_) => Self::Exception,
            Miss::Interface => Self::Interface,
            Miss::Order => Self::Order,
        }
    }
}

/// When a program of somebody else runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Runs {
    /// Before ours.
    Before,
    /// After ours.
    After,
}

impl fmt::Display for Runs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Before => "before",
            Self::After => "after",
        })
    }
}

/// Why a rule can never decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ShadowedBy {
    /// Different rules take all that it would.
    Rules,
    /// None of the interfaces that it names is there.
    Interfaces,
    /// It could not be told in reasonable time.
    Unknown,
}
