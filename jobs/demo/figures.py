"""What the demo ends with: figures, a table, a page and a contact sheet."""

import json
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from jobs.demo.ledger import Ledger
from jobs.demo.products import DemoProduct
from jobs.demo.stage import DemoOptions, Stage
from jobs.report import Report, write_contact_sheet, write_page
from jobs.session.progress import Screen


def tell_figures(
    stage: Stage,
    products: list[DemoProduct],
    ids: list[str],
    ledger: Ledger,
    retrained: dict[str, Any] | None,
    options: DemoOptions,
    screen: Screen,
) -> dict[str, Any]:
    """Figures, table, page and contact sheet."""
    summaries = [ledger.summary(product.name, ids) for product in products]
    notes = [f"Delivery: {stage.broker.describe()}."]
    if retrained:
        notes.append(
            f"Scheduled retraining of {retrained['product']}: {retrained['status']} "
            f"{retrained['version'] or ''}, seen in {retrained['events']} events."
        )
    report = Report(
        title="linewatch demo",
        created=datetime.now(UTC),
        servers=stage.servers.describe(),
        summaries=summaries,
        images=[row for product in products for row in ledger.rows(product.name, ids)],
        lost=ledger.missing,
        doubled=ledger.doubled,
        deadletters=len(ledger.deadletters),
        notes=notes,
    )
    page, sheet = options.out / "report.html", options.out / "contact-sheet.png"
    options.out.mkdir(parents=True, exist_ok=True)
    with screen.step("Drawing the page and the contact sheet"):
        write_page(page, report)
        write_contact_sheet(sheet, report)
    figures = {
        "servers": {
            "kafka": stage.servers.kafka.name,
            "s3": stage.servers.s3.name,
            "delivery": stage.broker.delivery,
        },
        "products": {summary.product: asdict(summary) for summary in summaries},
        "images": len(ledger.sent),
        "events": sum(ledger.times_seen.values()),
        "lost": report.lost,
        "doubled": report.doubled,
        "deadletters": report.deadletters,
        "without_mask": ledger.without_mask(),
        "retraining": retrained,
        "pages": [str(page), str(sheet)],
    }
    screen.summary(report, figures)
    for path in (options.json_file, options.out / "figures.json"):
        if path:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(figures, indent=2) + "\n")
    return figures
