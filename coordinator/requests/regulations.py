from datetime import timedelta


def due_at(regulation, received_at, policy):
    return received_at + timedelta(days=30)
