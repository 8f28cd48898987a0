"""What works on this machine, what is missing, and what mends it: the checks of `refavs-rt doctor`.

Nothing here is imported before its check runs, so that the doctor comes also where numpy itself does not load.
"""
