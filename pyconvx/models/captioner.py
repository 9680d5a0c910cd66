"""Show and Tell: a network that looks, and one that writes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ._head import Features
from ._registry import register
from .bn_inception import BNInception


class ShowAndTell(nn.Module):
    """Vinyals, Toshev, Bengio and Erhan (2014, "Show and tell: a neural image caption generator", section 3).

    The features of a convolutional network are an LSTM's first input; its next ones are the words, and from each state
    it tells the next word.

    Input 3 x 224 x 224 and a caption; 25,196,288 parameters, 2.20 G multiply-adds for one image and 20
    words, with BN-Inception, as in the paper.

    Args:
        num_classes: number of words.
        in_channels: of the image.
        encoder: a classifier, which gives its features in place of its classes; BN-Inception if None.
        features: what the encoder gives, if it has no linear layer.
        hidden: size of words and of the state (section 4.3.1).
        dropout: of words and states.

    Shape: (N, in_channels, H, W), (N, T) -> (N, T, num_classes).
    """

    def __init__(
        self,
        num_classes: int = 12000,
        in_channels: int = 3,
        *,
        encoder: nn.Module | None = None,
        features: int | None = None,
        hidden: int = 512,
        dropout: float = 0.3,
    ) -> None:
        super().__init__()
        self.encoder = Features(encoder or BNInception(in_channels=in_channels), features)
        self.image = nn.Linear(self.encoder.features, hidden)
        self.words = nn.Embedding(num_classes, hidden)
        self.lstm = nn.LSTMCell(hidden, hidden)
        self.output = nn.Linear(hidden, num_classes)
        self.dropout = nn.Dropout(dropout)

    def forward(self, images: Tensor, captions: Tensor) -> Tensor:
        """Return the logits of the word behind each word of the captions."""
        state = self._look(images)
        states = []
        for word in self.dropout(self.words(captions)).unbind(1):
            state = self.lstm(word, state)
            states.append(state[0])
        return self.output(self.dropout(torch.stack(states, 1)))

    @torch.no_grad()
    def generate(self, images: Tensor, start: int, end: int, length: int = 20, beam: int = 3) -> Tensor:
        """Write captions by beam search (section 3.1): keep the ``beam`` best beginnings, word by word.

        Args:
            images: (N, C, H, W).
            start, end: the words that begin and end a caption.
            length: the most words behind ``start``.
            beam: number of beginnings that are kept; 1 takes the likeliest word each time.

        Returns:
            (N, length), the best captions without ``start``, filled up with ``end``.
        """
        n = images.shape[0]
        h, c = (state.repeat_interleave(beam, 0) for state in self._look(images))
        texts = torch.full((n * beam, 1), start, device=images.device)
        scores = torch.full((n, beam), float("-inf"), device=images.device)
        scores[:, 0] = 0  # all beginnings are one
        first = torch.arange(n, device=images.device)[:, None] * beam
        for _ in range(length):
            h, c = self.lstm(self.words(texts[:, -1]), (h, c))
            likelihood = self.output(h).float().log_softmax(1)
            ended = texts[:, 1:].eq(end).any(1)
            only_end = torch.full_like(likelihood, float("-inf"))
            only_end[:, end] = 0
            likelihood = torch.where(ended[:, None], only_end, likelihood)
            total = (scores[:, :, None] + likelihood.view(n, beam, -1)).flatten(1)
            scores, best = total.topk(beam, 1)
            kept = (first + best // likelihood.shape[1]).flatten()
            word = (best % likelihood.shape[1]).flatten()
            h, c, texts = h[kept], c[kept], torch.cat([texts[kept], word[:, None]], 1)
        return texts.view(n, beam, -1)[:, 0, 1:]

    def _look(self, images: Tensor) -> tuple[Tensor, Tensor]:
        state: tuple[Tensor, Tensor] = self.lstm(self.image(self.encoder(images)))
        return state


@register
def show_and_tell(**options: Any) -> ShowAndTell:
    """Show and Tell."""
    return ShowAndTell(**options)
