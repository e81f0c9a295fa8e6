"""Runs the demo: a temporary folder, the story in it, the result, and nothing left, however it ended.

Exit codes: 0 if everything was seen and measured as promised, 1 if not, 128 plus its number after a signal.
"""

from __future__ import annotations

import click

from agent.admin.printable import printable
from agent.demo.agents import DemoAgent
from agent.demo.interruption import EXIT_CODE_BASE, InterruptedDemoError, Interruption
from agent.demo.node_watch import Ask, DemoFailedError
from agent.demo.pair_files import DemoPair, create_pair
from agent.demo.premises import Premises, describe_kept
from agent.demo.result import Result, judge
from agent.demo.screen import Screen
from agent.demo.story import Story
from agent.platform.clock import boottime_ns

WORKED = 0
FAILED = 1
LOG_LINES_SHOWN = 15


def run_demo(ask: Ask, screen: Screen, *, keep: bool) -> int:
    """Runs the demo on `screen` and returns its exit code; `ask` reaches an agent through its agent.toml.

    With `keep` a pair that worked is left running, and the folder of one that did not is left for a look. Raises
    PairAgentError with a sentence if the pair could not be made, or did not do what it should.
    """
    began_ns = boottime_ns()
    with Interruption() as interruption, Premises(interruption) as premises:
        try:
            with screen:
                pair = create_pair(premises.folder)
                premises.agents = [DemoAgent(node) for node in pair.nodes]
                story = Story(pair, premises.agents, ask, screen, interruption, began_ns=began_ns)
                result = _play(story, pair, premises, screen, keep=keep)
        except InterruptedDemoError as error:
            click.echo("Interrupted: stopping both agents.", err=True)
            premises.clean_up()
            click.echo(f"Both agents are stopped, {premises.folder} is removed.", err=True)
            return EXIT_CODE_BASE + error.number
        except DemoFailedError:
            _show_logs(pair)
            premises.stop()
            if keep:
                premises.keep_folder()
                click.echo(f"The agents are stopped; what they left is in {premises.folder}", err=True)
            raise
        screen.show_result(result)
        if keep:
            click.echo("")
            for line in describe_kept(pair):
                click.echo(line)
        return WORKED if result.worked else FAILED


def _play(story: Story, pair: DemoPair, premises: Premises, screen: Screen, *, keep: bool) -> Result:
    fault, ending = story.tell()
    if keep:
        story.resume()
        premises.keep()
        return judge(story.runs(), fault, ending)
    premises.stop()
    # Only now, so that the end is judged too.
    result = judge(story.runs(), fault, ending)
    if not result.worked:
        screen.close()
        _show_logs(pair)
    premises.clean_up()
    screen.say("end", f"both agents are stopped, {premises.folder} is removed")
    return result


def _show_logs(pair: DemoPair) -> None:
    for node in pair.nodes:
        click.echo(f"The end of the log of {node.name}:", err=True)
        for line in node.log_tail(LOG_LINES_SHOWN):
            click.echo(f"  {printable(line)}", err=True)
