"""Label files of other programs <-> label sets, a folder for each; `pickles` reads pickles without running them."""
