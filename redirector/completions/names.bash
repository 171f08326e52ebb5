
# What is known on this machine only: namespaces, containers, rules, and files that are meant for it.
_redirector_names() {
    local line="${COMP_LINE:0:COMP_POINT}" command="" target="" kind="" name begin i
    local full="${line##*[[:space:]]}"
    local -a words names=()
    read -ra words <<< "${line%"$full"}"
    for ((i = 1; i < ${#words[@]}; i++)); do
        case "${words[i]}" in
            --socket) i=$((i + 1)) ;;
            -*) ;;
            *)
                if [[ -z "$command" ]]; then command="${words[i]}"
                elif [[ -z "$target" ]]; then target="${words[i]}"; fi
                ;;
        esac
    done
    case "$command/${words[${#words[@]} - 1]}" in
        attach/attach | detach/detach | list/list | explain/explain | exec/exec | cleanup/cleanup) kind=targets ;;
        detach/--rule | detach/--name) kind=rules ;;
        apply/apply | check/check | run/--config | explain/--config) kind=files ;;
    esac
    if [[ -n "$kind" && "$full" != -* ]]; then
        COMPREPLY=()
        if [[ "$kind" == files ]]; then
            compopt -o filenames 2> /dev/null
            mapfile -t names < <(compgen -f -X '!*.toml' -- "$full"; compgen -d -- "$full")
        else
            mapfile -t names < <(REDIRECTOR_COMPLETE="$kind" "${words[0]}" "$target" 2> /dev/null)
        fi
        # The shell takes a word with a colon for several, and replaces the last of them.
        begin=""
        if [[ "$COMP_WORDBREAKS" == *:* && "$full" == *:* ]]; then begin="${full%"${full##*:}"}"; fi
        for name in "${names[@]}"; do
            if [[ "$name" == "$full"* ]]; then COMPREPLY+=("${name#"$begin"}"); fi
        done
        return 0
    fi
    _redirector "$@"
}

complete -F _redirector_names -o bashdefault -o default redirector
