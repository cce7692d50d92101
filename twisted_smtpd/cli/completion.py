"""Completion for shells, made from the options: ``twisted-smtpd completion bash``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence

from twisted_smtpd.cli.help import TOPICS, option_text
from twisted_smtpd.cli.subcommands import SUBCOMMANDS
from twisted_smtpd.handlers.registry import built_in_handlers
from twisted_smtpd.options.option import Option
from twisted_smtpd.runtime.exit_status import EX_USAGE

__all__ = ["SHELLS", "main"]

NAME = "twisted-smtpd"
# What stands for the value of an option that names a file or a folder.
_FILES = ("FILE", "DIR")


def _options() -> Iterator[Option]:
    for topic in TOPICS:
        # One topic may name options of another first.
        yield from (option for option in topic.options(True) if option.group == topic.group)


def _others() -> Iterator[tuple[str, str]]:
    """The options that set nothing, with what they do."""
    for topic in TOPICS:
        for name, text in topic.others:
            flag = name.split()[-1] if name.startswith("-u") else name.split()[0]
            if flag.startswith("--"):
                yield flag, text


def _values(option: Option) -> tuple[str, ...]:
    """The values that an option can have, where they are few."""
    if option.flag == "class":
        return tuple(name for name, _ in built_in_handlers())
    return option.choices


def bash() -> str:
    """The completion of bash, version 4 or later."""
    flags = [f"--{option.flag}" for option in _options()] + [flag for flag, _ in _others()]
    cases = []
    for option in _options():
        patterns = "|".join(filter(None, (f"--{option.flag}", option.short and f"-{option.short}")))
        if values := _values(option):
            cases.append(f'        {patterns}) COMPREPLY=($(compgen -W "{" ".join(values)}" -- "$cur")); return;;')
        elif option.placeholder in _FILES and not option.switch:
            cases.append(f'        {patterns}) compopt -o filenames; COMPREPLY=($(compgen -f -- "$cur")); return;;')
        elif not option.switch:
            cases.append(f"        {patterns}) return;;")
    words = [
        f'            {name}) COMPREPLY=($(compgen -W "{" ".join(one.words)}" -- "$cur")); return;;'
        for name, one in SUBCOMMANDS.items()
        if one.words
    ]
    return "\n".join(
        (
            f"# Completion of {NAME} for bash: source it, or put it into the folder bash-completion/completions.",
            "_twisted_smtpd() {",
            '    local cur="${COMP_WORDS[COMP_CWORD]}" prev="${COMP_WORDS[COMP_CWORD-1]}"',
            "    # --option=value is three words for bash.",
            '    if [[ $cur == "=" ]]; then cur=""',
            '    elif [[ $prev == "=" ]]; then prev="${COMP_WORDS[COMP_CWORD-2]}"; fi',
            "    if ((COMP_CWORD == 2)); then",
            '        case "${COMP_WORDS[1]}" in',
            *words,
            "        esac",
            "    fi",
            '    case "$prev" in',
            *cases,
            "    esac",
            "    if [[ $cur == -* ]]; then",
            f'        COMPREPLY=($(compgen -W "{" ".join(flags)}" -- "$cur"))',
            "    elif ((COMP_CWORD == 1)); then",
            f'        COMPREPLY=($(compgen -W "{" ".join(SUBCOMMANDS)}" -- "$cur"))',
            "    else",
            "        compopt -o filenames",
            '        COMPREPLY=($(compgen -f -- "$cur"))',
            "    fi",
            "}",
            f"complete -F _twisted_smtpd {NAME}",
            "",
        )
    )


def _quoted(text: str) -> str:
    """A text within single quotes, for a POSIX shell or fish."""
    return "'" + text.replace("'", "'\\''") + "'"


def zsh() -> str:
    """The completion of zsh."""
    lines = []
    for option in _options():
        text = _zsh_text(option_text(option))
        value = "" if option.switch else f":{_zsh_text(option.placeholder)}:{_zsh_action(option)}"
        again = "*" if option.repeats else ""
        equals = "" if option.switch else "="
        lines.append(_quoted(f"{again}--{option.flag}{equals}[{text}]{value}"))
        if option.short:
            lines.append(_quoted(f"{again}-{option.short}[{text}]{value}"))
    lines += [_quoted(f"{flag}[{_zsh_text(text)}]") for flag, text in _others()]
    commands = [_quoted(f"{name}:{_zsh_text(one.summary)}") for name, one in SUBCOMMANDS.items()]
    completed = {name: " ".join(one.words) for name, one in SUBCOMMANDS.items() if one.words}
    cases = [f"            {name}) _values {name} {words}; return;;" for name, words in completed.items()]
    return "\n".join(
        (
            f"#compdef {NAME}",
            f"# Completion of {NAME} for zsh: put it into a folder of $fpath, under the name _{NAME}.",
            "_twisted_smtpd() {",
            "    local -a commands",
            f"    commands=({' '.join(commands)})",
            "    if ((CURRENT == 2)) && [[ $PREFIX != -* ]]; then",
            "        _describe command commands",
            "        return",
            "    fi",
            "    if ((CURRENT == 3)); then",
            '        case "$words[2]" in',
            *cases,
            "        esac",
            "    fi",
            "    _arguments -s \\",
            *(f"        {line} \\" for line in lines),
            "        '*:argument:_files'",
            "}",
            '_twisted_smtpd "$@"',
            "",
        )
    )


def _zsh_text(text: str) -> str:
    for special in "\\:[]":
        text = text.replace(special, f"\\{special}")
    return text


def _zsh_action(option: Option) -> str:
    if values := _values(option):
        return f"({' '.join(values)})"
    return {"FILE": "_files", "DIR": "_files -/"}.get(option.placeholder, "")


def fish() -> str:
    """The completion of fish."""
    lines = [f"# Completion of {NAME} for fish: put it into the folder completions, as {NAME}.fish."]
    for name, one in SUBCOMMANDS.items():
        lines.append(f"complete -c {NAME} -n __fish_use_subcommand -f -a {name} -d {_quoted(one.summary)}")
        if one.words:
            words = _quoted(" ".join(one.words))
            lines.append(f"complete -c {NAME} -n '__fish_seen_subcommand_from {name}' -f -a {words}")
    for option in _options():
        parts = [f"complete -c {NAME} -l {option.flag}"]
        if option.short:
            parts.append(f"-s {option.short}")
        if values := _values(option):
            parts.append(f"-x -a {_quoted(' '.join(values))}")
        elif not option.switch:
            parts.append("-r -F" if option.placeholder in _FILES else "-x")
        parts.append(f"-d {_quoted(option_text(option))}")
        lines.append(" ".join(parts))
    lines += [f"complete -c {NAME} -l {flag[2:]} -d {_quoted(text)}" for flag, text in _others()]
    return "\n".join([*lines, ""])


#: What makes the completion of each shell.
SHELLS: dict[str, Callable[[], str]] = {"bash": bash, "zsh": zsh, "fish": fish}


def main(words: Sequence[str]) -> None:
    """Print the completion of a shell; exit with 64 and one line if there is none for it.

    :param words: the shell's name.
    """
    if len(words) != 1 or words[0] not in SHELLS:
        sys.stderr.write(f"{NAME} completion: name one of the shells {', '.join(SHELLS)}\n")
        sys.exit(EX_USAGE)
    sys.stdout.write(SHELLS[words[0]]())
