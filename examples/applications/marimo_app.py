"""A marimo notebook: `marimo run marimo_app.py`, or `marimo edit`."""

import marimo

app = marimo.App()


@app.cell
def _():
    import marimo as mo

    number = mo.ui.number(start=0, stop=100, value=6, label="Number")
    number
    return mo, number


@app.cell
def _(mo, number):
    mo.md(f"Seven times that is **{7 * number.value}**")
    return


if __name__ == "__main__":
    app.run()
