"""The section of references: the papers of the methods in the plan."""

from __future__ import annotations

from orchestrator.analysis.frames import Frames
from orchestrator.citations import Citation, paper_of
from orchestrator.sections.forms import Section


def references(frames: Frames) -> Section | None:
    """Authors, title, venue and link of every method that the plan trains, each paper once; None where it trains none."""
    methods = sorted({str(cell["method"]) for cell in frames.facts.cells if cell["method"] is not None})
    if not methods:
        return None
    papers = {method: paper_of(method) for method in methods}
    by_link: dict[str, tuple[Citation, list[str]]] = {}
    for method, paper in papers.items():
        if paper is not None:
            by_link.setdefault(paper.url, (paper, []))[1].append(method)
    points = [f"{', '.join(users)}: {paper.words()}" for paper, users in by_link.values()]
    unknown = [method for method, paper in papers.items() if paper is None]
    notes = ["`kdsweep report --bib` prints them as BibTeX; authors are last names, as the methods' files have them."] if points else []
    if unknown:
        notes.append(f"No paper is known here of {', '.join(unknown)}: this kdsweep has no such method.")
    return Section("References of the methods used", points=tuple(points), notes=tuple(notes))
