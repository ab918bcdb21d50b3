"""One organization against another: every address, every role, to read and to write.

`matrix` finds the addresses in the resolver and knows what to try at each; `traces` says what would betray the other
organization; `rows` says what belongs to it.
"""
