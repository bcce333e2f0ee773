"""Reading pictures, their pixels and views."""
