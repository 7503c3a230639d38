"""Servers on loopback: real ones, scripted ones, and proxies that fail as a test says."""
