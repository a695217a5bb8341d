"""Keys and values have one source, so its gradient is a sum of two; in self-attention that source is x itself."""


def attention_layer_backward(self, dy, cache):
    cache_q, cache_k, cache_v, cache_attention, cache_out, is_self = cache
    dh = self.to_out[0].backward(dy, cache_out)
    dq, dk, dv = cache_attention.backward(dh)
    dx = self.to_q.backward(dq, cache_q)
    dsource = self.to_k.backward(dk, cache_k) + self.to_v.backward(dv, cache_v)
    return (dx + dsource, None) if is_self else (dx, dsource)
