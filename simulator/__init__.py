"""The services' side of the wire: an Africa's Talking, a TextBee, a Viber and a RapidPro that run on this machine.

It stands for other people's servers, so it imports nothing of ours. `python -m simulator` starts it;
docs/simulator.md tells how to use it.
"""
