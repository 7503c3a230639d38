"""An input for each class of errors that raises it, and the world of files that these inputs damage."""
