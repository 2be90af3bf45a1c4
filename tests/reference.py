"""A slow oracle of both networks, written from the specification and sharing no code with them.

Everything is a function of a state dict in released names. Windows are cut by loops, hourglass
tokens are handled image by image, and attention is written out.
"""

import math
import zlib

import numpy as np
import torch
import torch.nn.functional as F


def formula_weight(name, shape):
    """Weights that anyone can make again from the parameter's name."""
    r = np.random.RandomState(zlib.crc32(name.encode()))
    n = math.prod(shape)
    if name.endswith('num_batches_tracked'):
        value = np.zeros(n)
    elif name.endswith('running_var'):
        value = r.uniform(0.5, 1.5, n)
    elif 'gamma_' in name:
        value = r.uniform(0.1, 0.5, n)
    elif name.endswith('cls_token'):
        value = 0.02 * r.standard_normal(n)
    elif name.endswith(('bias', 'running_mean')):
        value = 0.1 * r.standard_normal(n)
    elif len(shape) == 1:
        value = 1 + 0.1 * r.standard_normal(n)
    else:
        value = r.standard_normal(n) / math.sqrt(math.prod(shape[1:]))
    return torch.tensor(value.reshape(shape)).float()


def formula_state(shapes):
    """A state dict of formula weights for a mapping of names to shapes."""
    return {name: formula_weight(name, tuple(shape)) for name, shape in shapes.items()}


def formula_image(shape):
    return torch.tensor(np.random.RandomState(0).standard_normal(shape))


class Weights:
    """A view of a state dict below a prefix."""

    def __init__(self, state, prefix=''):
        self.state, self.prefix = state, prefix

    def at(self, name):
        return Weights(self.state, f'{self.prefix}{name}.')

    def get(self, name):
        return self.state.get(self.prefix + name)

    def has(self, name):
        return any(key.startswith(self.prefix + name) for key in self.state)

    def conv(self, x, **kwargs):
        return F.conv2d(x, self.get('weight'), self.get('bias'), **kwargs)

    def linear(self, x):
        return x @ self.get('weight').T + self.get('bias')

    def batch_norm(self, x):
        mean, var = (self.get(n)[None, :, None, None] for n in ('running_mean', 'running_var'))
        weight, bias = (self.get(n)[None, :, None, None] for n in ('weight', 'bias'))
        return (x - mean) / (var + 1e-5).sqrt() * weight + bias

    def layer_norm(self, x, eps):
        """Normalize the last axis."""
        centred = x - x.mean(-1, keepdim=True)
        var = (centred**2).mean(-1, keepdim=True)
        return centred / (var + eps).sqrt() * self.get('weight') + self.get('bias')

    def map_layer_norm(self, x, eps):
        return torch.movedim(self.layer_norm(torch.movedim(x, 1, -1), eps), -1, 1)


def gelu(x):
    return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))


def embed(w, x, stage):
    """Patch embedding of a stage, counted from 0."""
    if w.has('proj.0'):
        x = w.at('proj.1').batch_norm(w.at('proj.0').conv(x, stride=2, padding=1))
        if stage == 0:
            x = w.at('proj.3').conv(gelu(x), stride=2, padding=1)
            x = w.at('proj.4').batch_norm(x)
        return x
    stride = 2 if stage else 4
    return w.at('norm').map_layer_norm(w.at('proj').conv(x, stride=stride), 1e-5)


def scale(w, name, branch):
    gamma = w.get(name)
    return branch if gamma is None else gamma * branch


def position(w, x):
    return x + w.at('pos_embed').conv(x, padding=1, groups=x.shape[1])


def local_block(w, x):
    x = position(w, x)
    y = w.at('conv1').conv(w.at('norm1').batch_norm(x))
    y = w.at('conv2').conv(w.at('attn').conv(y, padding=2, groups=x.shape[1]))
    x = x + scale(w, 'gamma_1', y)
    y = w.at('mlp.fc2').conv(gelu(w.at('mlp.fc1').conv(w.at('norm2').batch_norm(x))))
    return x + scale(w, 'gamma_2', y)


def attention(w, tokens, head_dim):
    """Tokens (N, C) of one set: the result and the attention matrices (h, N, N)."""
    n, c = tokens.shape
    q, k, v = w.at('qkv').linear(tokens).split(c, dim=1)
    outs, matrices = [], []
    for head in range(c // head_dim):
        part = slice(head * head_dim, (head + 1) * head_dim)
        matrix = torch.softmax(q[:, part] @ k[:, part].T / math.sqrt(head_dim), 1)
        outs.append(matrix @ v[:, part])
        matrices.append(matrix)
    return w.at('proj').linear(torch.cat(outs, 1)), torch.stack(matrices)


def ffn(w, x):
    return w.at('mlp.fc2').linear(gelu(w.at('mlp.fc1').linear(w.at('norm2').layer_norm(x, 1e-6))))


def attend_map(w, x, head_dim, window):
    """Attend on a map (H, W, C), inside windows or on all of it."""
    h, wd, c = x.shape
    if window is None:
        return attention(w, x.reshape(-1, c), head_dim)[0].reshape(h, wd, c)
    out = torch.zeros_like(x)
    for top in range(0, h, window):
        for left in range(0, wd, window):
            cell = x[top : top + window, left : left + window]
            padded = x.new_zeros(window, window, c)
            padded[: cell.shape[0], : cell.shape[1]] = cell
            result = attention(w, padded.reshape(-1, c), head_dim)[0].reshape(window, window, c)
            out[top : top + window, left : left + window] = result[: cell.shape[0], : cell.shape[1]]
    return out


def attention_block(w, x, head_dim, window):
    images = []
    for image in torch.movedim(position(w, x), 1, -1):
        y = attend_map(w.at('attn'), w.at('norm1').layer_norm(image, 1e-6), head_dim, window)
        image = image + scale(w, 'gamma_1', y)
        images.append(image + scale(w, 'gamma_2', ffn(w, image)))
    return torch.movedim(torch.stack(images), -1, 1)


def hourglass_block(w, x, cls, scores, head_dim, keep, trade):
    """One block; ``cls`` and ``scores`` are lists of (C,) and (N,) or None, one an image."""
    images, new_cls, new_scores = [], [], []
    _, c, h, wd = x.shape
    for index, image in enumerate(torch.movedim(position(w, x), 1, -1)):
        tokens, score = image.reshape(-1, c), scores[index]
        n = len(tokens)
        if keep == 1:
            chosen, others = list(range(n)), []
            sequence = torch.cat([cls[index][None], tokens])
        else:
            ranking = sorted(range(n), key=lambda j: -float(score[j].detach()))
            chosen, others = ranking[: int(n * keep)], ranking[int(n * keep) :]
            total = sum(score[j] for j in others)
            stand_in = sum(score[j] / total * tokens[j] for j in others)
            sequence = torch.cat([cls[index][None], tokens[chosen], stand_in[None]])
        attended, matrices = attention(
            w.at('attn'), w.at('norm1').layer_norm(sequence, 1e-6), head_dim
        )
        sequence = sequence + scale(w, 'gamma_1', attended)
        fed = ffn(w, sequence)
        sequence = sequence + scale(w, 'gamma_2', fed)
        row = matrices[:, 0].mean(0)
        out, new_score = [None] * n, [None] * n
        for place, j in enumerate(chosen):
            out[j] = sequence[1 + place]
            seen = row[1 + place]
            new_score[j] = seen if score is None else (1 - trade) * score[j] + trade * seen
        for j in others:
            out[j] = tokens[j] + scale(w, 'gamma_3', attended[-1] + fed[-1])
            new_score[j] = score[j]
        images.append(torch.stack(out).reshape(h, wd, c))
        new_cls.append(sequence[0])
        new_scores.append(torch.stack(new_score))
    return torch.movedim(torch.stack(images), -1, 1), new_cls, new_scores


def blocks_of(w, stage):
    count = 0
    while w.has(f'blocks{stage + 1}.{count}.'):
        yield w.at(f'blocks{stage + 1}.{count}')
        count += 1


def uniformer(state, x, head_dim, windows):
    """All four normed maps of UniFormer; ``windows`` has one window or None a stage-3 block."""
    w, outs = Weights(state), []
    for stage in range(4):
        x = embed(w.at(f'patch_embed{stage + 1}'), x, stage)
        for index, block in enumerate(blocks_of(w, stage)):
            if stage < 2:
                x = local_block(block, x)
            else:
                x = attention_block(block, x, head_dim, windows[index] if stage == 2 else None)
        outs.append(w.at(f'norm{stage + 1}').map_layer_norm(x, 1e-6))
    return outs


def uniformer_light(state, x, head_dim, keep_ratios):
    """All four normed maps of the hourglass network; trade-offs equal keep ratios."""
    w, outs, shape = Weights(state), [], None
    cls = [state['cls_token'][0, 0]] * len(x)
    scores = [None] * len(x)
    for stage in range(4):
        x = embed(w.at(f'patch_embed{stage + 1}'), x, stage)
        if stage == 3:
            cls = [w.at('cls_upsample').linear(token) for token in cls]
            scores = [halve(score, *shape) for score in scores]
        for index, block in enumerate(blocks_of(w, stage)):
            if stage < 2:
                x = local_block(block, x)
            else:
                keep = keep_ratios[stage - 2][index]
                x, cls, scores = hourglass_block(block, x, cls, scores, head_dim, keep, keep)
        shape = x.shape[2:]
        outs.append(w.at(f'norm{stage + 1}').map_layer_norm(x, 1e-6))
    return outs


def halve(score, h, w):
    grid = score.reshape(h, w)[: h // 2 * 2, : w // 2 * 2]
    pooled = grid.reshape(h // 2, 2, w // 2, 2).mean((1, 3))
    return (pooled * (score.sum() / pooled.sum())).reshape(-1)
