"""Labels of rows, by models of the registry and routes over them."""
