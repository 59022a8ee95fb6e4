from dataclasses import dataclass


@dataclass(frozen=True)
class Decision:
    batch: tuple = ()
    reason: str = ""
    wake_at: object = None
    all_shards: bool = False
    shards: tuple = ()


def next_batch(open_requests, now, policy, seconds, num_shards, held=()):
    can = [r for r in open_requests if r.request_id not in held and not (r.not_before and r.not_before > now)]
    urgent = [r for r in can if r.priority != "normal"]
    if urgent:
        return Decision(tuple(r.request_id for r in urgent), "urgent")
    ready = [r for r in can if r.cancel_until <= now]
    if ready and min(r.cancel_until for r in ready) + policy.batch_window <= now:
        return Decision(tuple(r.request_id for r in ready), "window")
    return Decision()
