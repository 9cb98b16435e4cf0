"""Grey levels of whole sections: counted block by block, merged, and turned into tables that blocks look up."""
