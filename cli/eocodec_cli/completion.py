"""`eocodec completion`."""

import click
from click.shell_completion import get_completion_class

# Where click's script has nothing to offer, because a name or a path is expected, files are offered.
FILES = {
    "bash": ("    return 0\n", '    [[ -n "$response" ]] || compopt -o default\n\n    return 0\n'),
    "zsh": (
        '    if [ -n "$completions" ]',
        '    if [[ -z "$response" ]]; then\n        _path_files -f\n    fi\n\n    if [ -n "$completions" ]',
    ),
    "fish": (
        "    for completion in $response;",
        '    if test -z "$response";\n        __fish_complete_path (commandline -t);\n    end;\n\n'
        "    for completion in $response;",
    ),
}


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print the script that completes commands, options and file names in a shell.

    \b
    Examples:
      eocodec completion bash > ~/.local/share/bash-completion/completions/eocodec
      eocodec completion zsh > ~/.zfunc/_eocodec      # ~/.zshrc: fpath+=~/.zfunc; autoload -U compinit; compinit
      eocodec completion fish > ~/.config/fish/completions/eocodec.fish
      source <(eocodec completion bash)               # for this shell only
    """
    from eocodec_cli import cli

    kind = get_completion_class(shell)
    assert kind is not None  # click has all three
    click.echo(kind(cli, {}, "eocodec", "_EOCODEC_COMPLETE").source().replace(*FILES[shell]))
