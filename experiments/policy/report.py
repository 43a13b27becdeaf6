"""The README's tables, made from results.json."""

from __future__ import annotations

from typing import Any

import numpy as np
from gradients import WAYS


def number(found: dict[str, Any], digits: int = 3) -> str:
    """Print mean ± standard error."""
    if found["standard_error"] is None:
        return f"{found['mean']:.{digits}f}"
    return f"{found['mean']:.{digits}f} ± {found['standard_error']:.{digits}f}"


def tables(results: dict[str, Any]) -> dict[str, str]:
    """Return the tables by name."""
    return {
        "control": control_table(results),
        "gradients": gradient_table(results["short"]),
        "short": short_table(results["short"]),
        "long": long_table(results["long"]),
        "texts": text_table(results["long"]),
    }


def control_table(results: dict[str, Any]) -> str:
    """Returns, and what became of the budget."""
    target = results["settings"]["control"]["target"]
    heads = ("task", "method", "chosen", "return of 100 new episodes", "median KL of an update", "largest")
    heads += ("within a factor of 2 of the budget", "above twice the budget", "no step kept", "s an update")
    lines = ["| " + " | ".join(heads) + " |"]
    lines.append("| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for task, methods in results["control"].items():
        for name, found in methods.items():
            moved = np.asarray(found["kl"])
            near, above = np.mean((moved > target / 2) & (moved < 2 * target)), np.mean(moved > 2 * target)
            seconds = "–" if (spent := found["seconds an update"]) is None else f"{spent:.2f}"
            chosen = found["choice"]["chosen"] if found["choice"] else "–"
            lines.append(
                f"| {task} | {name} | {chosen} | {number(found['return'], 1)} | {np.median(moved):.4f} "
                f"| {moved.max():.4f} | {near:.0%} | {above:.0%} | {np.mean(moved < 1e-6):.0%} | {seconds} |"
            )
    return "\n".join(lines)


def gradient_table(short: dict[str, Any]) -> str:
    """Expected gradients beside the true one."""
    lines = ["| way | length, true = 1 | cosine with the true one |", "| --- | ---: | ---: |"]
    for way, found in short["expected gradients"].items():
        cosine = "–" if found["cosine"] is None else f"{found['cosine']:.3f}"
        lines.append(f"| {way} | {found['length']:.3f} | {cosine} |")
    return "\n".join(lines)


def short_table(short: dict[str, Any]) -> str:
    """What each way ends at."""
    best = short["best"]
    lines = ["| way | its gradient is right | reward | KL(π‖ref) | reward − β KL | KL(π‖best) |"]
    lines.append("| --- | --- | ---: | ---: | ---: | ---: |")
    lines.append(f"| the best policy | | {best['reward']:.3f} | {best['kl']:.3f} | {best['value']:.3f} | 0 |")
    for way, found in short["ways"].items():
        right = "yes" if way not in WAYS or WAYS[way][1] else "no"
        columns = " | ".join(number(found[name]) for name in ("reward", "kl", "value"))
        lines.append(f"| {way} | {right} | {columns} | {number(found['kl to the best'], 4)} |")
    return "\n".join(lines)


def long_table(long: dict[str, Any]) -> str:
    """Reward and KL of continuations of new prompts, and the budget over the second half of training."""
    lines = ["| way | vowels | KL(π‖ref), nats | the same in the second half of training | coefficient, last |"]
    lines.append("| --- | ---: | ---: | ---: | ---: |")
    lines.append(f"| the reference | {long['reference']['reward']:.2f} | 0 | | |")
    for way, found in long["ways"].items():
        curve, ends = np.asarray(found["kl curve"]), [row[-1] for row in found["coefficient"]]
        lines.append(
            f"| {way} | {number(found['reward'], 2)} | {number(found['kl'], 2)} "
            f"| {curve[:, curve.shape[1] // 2 :].mean():.2f} | {min(ends):.2g} to {max(ends):.2g} |"
        )
    return "\n".join(lines)


def text_table(long: dict[str, Any]) -> str:
    """Show prompts and continuations."""
    lines = ["| | prompt | continuation |", "| --- | --- | --- |"]
    for name, found in {"the reference": long["reference"], **long["ways"]}.items():
        lines += [f"| {name} | `{prompt}` | `{text}` |" for prompt, text in found["texts"][:2]]
    return "\n".join(lines)
