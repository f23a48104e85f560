"""The real process, from outside: started as users start it, with real peers around it."""
