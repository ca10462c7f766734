"""`diffuse ui`: a page to draw with, in the browser, on this computer alone."""

import threading
from typing import Annotated

import typer

from ..checks import check_range
from . import options
from .terminal import view


def ui(
    model: Annotated[str | None, typer.Argument(
        metavar="MODEL", autocompletion=options.complete_model,
        help="Name or path of the model that is chosen first. Default: the last trained model.")] = None,
    port: Annotated[int | None, typer.Option("--port", help="Port of the page. Default: a free one.")] = None,
    no_browser: Annotated[bool, typer.Option(
        "--no-browser", help="Print the address without opening it in the browser.")] = False,
    quiet: options.Quiet = False, verbose: options.Verbose = False, json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Open a page to draw with, and to watch trainings, in the browser. Prints its address. Ctrl-C ends it.

    [bold]diffuse ui[/]

    [bold]diffuse ui cars --no-browser --port 8000[/]
    """
    view.configure(quiet=quiet, verbose=verbose, json=json, debug=debug)
    if port is not None:
        check_range("--port", port, 1, 65_535)
    from ..ui.choices import Models

    models = Models.starting_with(model)
    from ..ui.drawing import Queue
    from ..ui.server import PageServer

    drawings = Queue()
    with PageServer(port or 0, models, drawings) as server, server.answering():
        if view.settings.json:
            view.out_json({"url": server.address})
        else:
            view.out(server.address)
        view.say("the page is for this computer alone; Ctrl-C ends it")
        if not no_browser:
            threading.Thread(target=_open_browser, args=(server.address_for_browser,), daemon=True).start()
        drawings.work(models.path)


def _open_browser(address: str) -> None:
    """Open the address in a browser with windows, if there is one. One that draws into the terminal is not started."""
    import webbrowser

    try:
        browser = webbrowser.get()
    except webbrowser.Error:
        return
    if type(browser) is not webbrowser.GenericBrowser:
        browser.open(address)
