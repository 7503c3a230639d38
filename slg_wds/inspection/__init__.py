"""`slg-wds inspect`: what a label set is, how far it is, one image's labels. Imports neither torch nor webdataset."""
