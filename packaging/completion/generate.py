"""Shell completion for bash and zsh, out of the parsers of the command line: generate.py FOLDER

Needs nothing but Python: it is run when a package is built.
"""

import argparse
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from edge import cli
from edge.client import SUMMARIES, main

NAMES = "sagemaker-edge-agent sagemaker_edge_agent_client_example"
FILES = {"CONFIG", "DIR", "FILE", "PATH", "SOCKET"}  # metavars of what is completed as a file


def options(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """The options of a parser that --help shows."""
    return [one for one in parser._actions if one.option_strings and one.help != argparse.SUPPRESS]


def commands() -> dict[str, argparse.ArgumentParser]:
    """The parser of each command."""
    subparsers = next(a for a in main.make_parser(cli.PROGRAM)._actions if isinstance(a, argparse._SubParsersAction))
    return {word: subparsers.choices[word] for word in SUMMARIES}


def words(actions: list[argparse.Action]) -> str:
    return " ".join(word for one in actions for word in one.option_strings)


def bash() -> str:
    daemon = options(cli.make_parser())
    with_value = "|".join(word for one in daemon if one.nargs != 0 for word in one.option_strings)
    cases = [f'    {word}) options="{words(options(parser))}" ;;' for word, parser in commands().items()]
    return f"""_sagemaker_edge_agent() {{
    local cur=${{COMP_WORDS[COMP_CWORD]}} prev=${{COMP_WORDS[COMP_CWORD - 1]}} word command="" options
    for word in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
        case $word in
        {"|".join(SUMMARIES)}) command=$word && break ;;
        esac
    done
    case $command in
{chr(10).join(cases)}
    *) options="{words(daemon)}" ;;
    esac
    COMPREPLY=() # nothing: file names
    case $cur in
    -*) mapfile -t COMPREPLY < <(compgen -W "$options" -- "$cur") ;;
    *)
        case $prev in {with_value}) return ;; esac
        [ -n "$command" ] || mapfile -t COMPREPLY < <(compgen -W "{" ".join(SUMMARIES)}" -- "$cur")
        ;;
    esac
}}
complete -o default -F _sagemaker_edge_agent {NAMES}
"""


def zsh_options(actions: list[argparse.Action]) -> str:
    specs = []
    for one in actions:
        text = re.sub(r"([\[\]:\\])", r"\\\1", " ".join((one.help or "").split())).replace("'", "'\\''")
        value = "" if one.nargs == 0 else f":{one.metavar or one.dest}:{'_files' if one.metavar in FILES else ' '}"
        specs += [f"'{word}[{text}]{value}'" for word in one.option_strings]
    return " ".join(specs)


def zsh() -> str:
    described = "\n".join(f"    '{word}:{text}'" for word, text in SUMMARIES.items())
    cases = "\n".join(
        f"  {word}) _arguments {zsh_options(options(parser))} '*:file:_files' ;;" for word, parser in commands().items()
    )
    return f"""#compdef {NAMES}
local curcontext=$curcontext state line
local -a commands=(
{described}
)
_arguments -C {zsh_options(options(cli.make_parser()))} '1: :->command' '*:: :->words' && return
case $state in
command) _describe -t commands command commands ;;
words)
  case $words[1] in
{cases}
  esac
  ;;
esac
"""


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(exist_ok=True)
    (folder / "bash").write_text(bash())
    (folder / "zsh").write_text(zsh())
