# What is known on this machine only.
_redirector_targets() {
    local -a names
    names=("${(@f)$(REDIRECTOR_COMPLETE=targets redirector 2> /dev/null)}")
    compadd -- $names
}

_redirector_rules() {
    local -a names
    names=("${(@f)$(REDIRECTOR_COMPLETE=rules redirector "${words[(r)*:*]}" 2> /dev/null)}")
    compadd -- $names
}

