
# What is known on this machine only.
function __fish_redirector_target
    string match --regex -- '^[^-].*:.*$|^self$|^host$' (commandline -opc)[2..] | head -n 1
end
for command in attach detach list explain exec cleanup
    complete -c redirector -n "__fish_redirector_using_subcommand $command" -f -a "(env REDIRECTOR_COMPLETE=targets redirector 2>/dev/null)"
end
complete -c redirector -n "__fish_redirector_using_subcommand detach" -l rule -x -a "(env REDIRECTOR_COMPLETE=rules redirector (__fish_redirector_target) 2>/dev/null)"
