# Completion of fcgiguard(1) for bash. Made by cli/tests/pages.rs; do not edit.
_fcgiguard() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]}
    COMPREPLY=()
    if [ "$COMP_CWORD" = 1 ]; then
        mapfile -t COMPREPLY < <(compgen -W 'probe request run watch agent check demo echo status top reload upgrade scale stop exporter bench' -- "$cur")
        return
    fi
    case ${COMP_WORDS[1]}:$prev in
    run:--sizing) mapfile -t COMPREPLY < <(compgen -W 'static dynamic ondemand' -- "$cur"); return ;;
    run:--ready) mapfile -t COMPREPLY < <(compgen -W 'auto said alive' -- "$cur"); return ;;
    run:--cooperate) mapfile -t COMPREPLY < <(compgen -W 'preload observe none' -- "$cur"); return ;;
    run:--memory-kind) mapfile -t COMPREPLY < <(compgen -W 'pss rss' -- "$cur"); return ;;
    run:--request-timeout-only-queued) mapfile -t COMPREPLY < <(compgen -W 'yes no' -- "$cur"); return ;;
    run:--on-crash) mapfile -t COMPREPLY < <(compgen -W 'retry restart hold exit' -- "$cur"); return ;;
    run:--failure-action) mapfile -t COMPREPLY < <(compgen -W 'retry restart hold exit' -- "$cur"); return ;;
    run:--clear-env) mapfile -t COMPREPLY < <(compgen -W 'yes no' -- "$cur"); return ;;
    run:--no-new-privs) mapfile -t COMPREPLY < <(compgen -W 'yes no' -- "$cur"); return ;;
    run:--output) mapfile -t COMPREPLY < <(compgen -W 'inherit capture' -- "$cur"); return ;;
    run:--log-format) mapfile -t COMPREPLY < <(compgen -W 'text json journal' -- "$cur"); return ;;
    esac
    case $cur in
    -*)
        case ${COMP_WORDS[1]} in
        probe) mapfile -t COMPREPLY < <(compgen -W '--method --param --script --expect-status --expect-header --expect-body --timeout --max-open --json --verbose --quiet --help' -- "$cur") ;;
        request) mapfile -t COMPREPLY < <(compgen -W '--script --param --method --query --body --timeout --head --help' -- "$cur") ;;
        run) mapfile -t COMPREPLY < <(compgen -W '--name --listen --backlog --socket-mode --socket-owner --socket-group --workers --sizing --min-workers --max-workers --min-spare --max-spare --idle-timeout --ready --alive-after --start-timeout --cooperate --max-requests --max-lifetime --max-memory --memory-kind --memory-samples --sample-interval --jitter --request-timeout --request-signal --request-kill-after --request-timeout-only-queued --stop-timeout --stop-signal --drain-repeat --max-surge --max-unavailable --canary-time --reload-timeout --upgrade-timeout --restart-delay --restart-factor --restart-delay-max --give-up-after --on-crash --give-up-code --fatal-codes --max-failures --failure-window --failure-action --failure-grace --self-probe --self-probe-timeout --control --control-mode --control-users --control-readers --pidfile --user --group --umask --chroot --chdir --env --clear-env --rlimit-nofile --rlimit-core --rlimit-as --nice --no-new-privs --watch --watch-debounce --output --log --log-format --signals' -- "$cur") ;;
        watch) mapfile -t COMPREPLY < <(compgen -W '--config' -- "$cur") ;;
        agent) mapfile -t COMPREPLY < <(compgen -W '--listen --control --drain-file --drain-on-reload --timeout' -- "$cur") ;;
        check) mapfile -t COMPREPLY < <(compgen -W '' -- "$cur") ;;
        demo) mapfile -t COMPREPLY < <(compgen -W '--app' -- "$cur") ;;
        echo) mapfile -t COMPREPLY < <(compgen -W '--listen' -- "$cur") ;;
        status) mapfile -t COMPREPLY < <(compgen -W '--json --line --ready --timeout --wait --control' -- "$cur") ;;
        top) mapfile -t COMPREPLY < <(compgen -W '--interval --once --plain --count --sort --timeout --help --control' -- "$cur") ;;
        reload) mapfile -t COMPREPLY < <(compgen -W '--json --line --ready --timeout --wait --control' -- "$cur") ;;
        upgrade) mapfile -t COMPREPLY < <(compgen -W '--json --line --ready --timeout --wait --control' -- "$cur") ;;
        scale) mapfile -t COMPREPLY < <(compgen -W '--json --line --ready --timeout --wait --control' -- "$cur") ;;
        stop) mapfile -t COMPREPLY < <(compgen -W '--json --line --ready --timeout --wait --control' -- "$cur") ;;
        exporter) mapfile -t COMPREPLY < <(compgen -W '--listen --control --probe --allow --timeout --max-open --config --help' -- "$cur") ;;
        bench) mapfile -t COMPREPLY < <(compgen -W '--connections --requests --duration --rate --keep-alive --retry-stale --body --method --script --query --param --expect-body --by-header --timeout --log-lost --json' -- "$cur") ;;
        esac
        ;;
    *) compopt -o default ;;
    esac
}
complete -F _fcgiguard fcgiguard
