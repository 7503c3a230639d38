"""`slg-wds report`: label sets as one page for the browser. Imports label sets, images and replay's sources."""
