"""The console: pages for operators at ``/console``, served by every controller.

`routes` lists the pages, `guard` admits their callers, `streams` keeps them up to date. Texts are in ``templates/``,
styles and scripts in ``static/``; there is no build step.
"""
