"""How measurements run: one worker process for each contender, arithmetic on what it cost, tables and the page."""
