"""The ledger: an index of what is published, and the verbs that keep house."""
