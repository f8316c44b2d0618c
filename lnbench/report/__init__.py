"""Reports: what people and continuous integration read. rich and pandas are used only here."""
