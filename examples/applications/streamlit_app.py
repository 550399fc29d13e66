"""A Streamlit application: `streamlit run streamlit_app.py`."""

import streamlit

streamlit.title("Streamlit")
name = streamlit.text_input("Name")
if streamlit.button("Greet"):
    streamlit.write(f"Hello, {name}!")
