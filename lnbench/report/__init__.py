"""Reports: what people and continuous integration read. Only here are rich and pandas used; nothing here prints by itself."""
