"""`dormice completion`: scripts that ask `dormice __complete WORDS…`, which answers from the parsers themselves."""

from __future__ import annotations

import argparse

from dormice.cli.commands import COMMANDS, Parser, parser_of

_SCRIPTS = {
    "bash": """\
# eval "$(dormice completion bash)"
_dormice() {
    local IFS=$'\\n'
    COMPREPLY=($(dormice __complete "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null))
}
complete -o default -F _dormice dormice""",
    "zsh": """\
# eval "$(dormice completion zsh)"
_dormice() {
    local -a found
    found=("${(@f)$(dormice __complete "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    if [[ -n "$found[1]" ]]; then compadd -a found; else _files; fi
}
compdef _dormice dormice""",
    "fish": """\
# dormice completion fish | source
complete -c dormice -a '(dormice __complete (commandline -opc)[2..-1] (commandline -ct))'""",
}


def declare(parser: Parser) -> None:
    parser.add_argument("shell", choices=sorted(_SCRIPTS))
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the script."""
    print(_SCRIPTS[arguments.shell])
    return 0


def complete(words: list[str]) -> list[str]:
    """What the last word may become, after the words before it."""
    *before, last = words or [""]
    if "--" in before:
        return []
    if not before:
        names = [*COMMANDS, "--help", "--version"]
    elif before[0] not in COMMANDS:
        return []
    else:
        names = _names(parser_of(before[0]), before[1:])
    return [name for name in names if name.startswith(last)]


def _names(parser: argparse.ArgumentParser, before: list[str]) -> list[str]:
    """Subcommands, or choices and options, that may stand behind these words."""
    for word in before:
        parser = _subcommands(parser).get(word, parser)
    if before and (option := parser._option_string_actions.get(before[-1])) and option.nargs != 0:  # noqa: SLF001
        return list(map(str, option.choices or []))
    if subcommands := _subcommands(parser):
        return [*subcommands]
    choices = [str(choice) for action in parser._actions for choice in action.choices or []]  # noqa: SLF001
    return [*choices, *(name for name in parser._option_string_actions if name.startswith("--"))]  # noqa: SLF001


def _subcommands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Argparse has no public way to ask."""
    for action in parser._actions:  # noqa: SLF001
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            return dict(action.choices)
    return {}
