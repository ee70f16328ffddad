"""The plain page at `/`."""

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>lemond-adapter</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif }
body { max-width: 46rem; margin: 2rem auto; padding: 0 1rem }
code { font-family: ui-monospace, monospace }
</style></head><body>
<h1>lemond-adapter</h1>
<p>It routes requests to the model servers that lemond really runs. Point an OpenAI client at
<code>/v1</code> on this port.</p>
<ul>
<li><a href="/api/slots">/api/slots</a>: what is loaded, and where</li>
<li><a href="/api/v1/adapter/status">/api/v1/adapter/status</a>: lemond, driver, log stream, counters</li>
<li><a href="/api/v1/adapter/routes">/api/v1/adapter/routes</a>: the route table</li>
<li><a href="/api/v1/adapter/events">/api/v1/adapter/events</a>: every change, as server-sent events</li>
<li><a href="/v1/models">/v1/models</a>: the models</li>
</ul></body></html>
"""
