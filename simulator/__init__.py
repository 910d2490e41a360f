"""The services' side of the wire: an Africa's Talking that runs on this machine, with a phone to type on.

It stands for other people's servers, so it imports nothing of ours. `python -m simulator` starts it;
docs/simulator.md tells how to use it.
"""
