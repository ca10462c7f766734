"""What docs/benchmarks.md reports: each module has `measure`, which fills a report, and `render`, which shows it."""
