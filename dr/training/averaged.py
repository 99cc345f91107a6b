"""Several nets and their views as one module without any other code around it: what `dr.export` writes."""

from collections.abc import Sequence

import torch
from torch import nn

from dr.squares import store
from dr.training import learner, views
from dr.training.runs import Voter
from preprocess.picture import square


class Averaged(nn.Module):
    """Squares -> the scores that `dr.predict` and `submissions.grade` give them, the mean of nets and views."""

    def __init__(self, voters: Sequence[Voter]):
        """Take the nets of the checkpoints, whose squares are of one size."""
        super().__init__()
        nets = [learner.load_net(voter.checkpoint) for voter in voters]
        self.nets = nn.ModuleList(nets)
        self.kind = voters[0].checkpoint.task.kind
        self.views: list[tuple[float, int, list[tuple[int, ...]]]] = []  # share of each view, side, where they are cut
        for number, (voter, net) in enumerate(zip(voters, nets, strict=True)):
            of, side = voter.checkpoint, net.image_px
            fixed = 1, of.making.size_px - side, of.settings.seed, of.settings.flips
            cuts = [tuple(int(of[0]) for of in views.cut_view(view, *fixed)[:4]) for view in range(voter.n_views)]
            self.views.append((voter.share / voter.n_views, side, cuts))
            table = store.compose_tables(square.keep_values(1), of.mean, of.std)[0]  # (256, 3)
            self.register_buffer(f"table_{number}", torch.from_numpy(table))

    def forward(self, squares: torch.Tensor, eyes: torch.Tensor | None = None) -> torch.Tensor:
        """Return the scores, (n, k), of (n, size_px, size_px, 3) uint8 RGB, lookup tables applied; eyes, see Head."""
        total = torch.zeros(())
        for number, (net, (share, side, cuts)) in enumerate(zip(self.nets, self.views, strict=True)):
            low, high = (self.get_buffer(f"table_{number}")[value] for value in (0, 255))  # a straight line each
            images = (low + squares.float() * ((high - low) / 255)).permute(0, 3, 1, 2)
            for top, left, is_down, is_right in cuts:
                view = images[:, :, top : top + side, left : left + side]
                turned = [axis for axis, is_flipped in ((2, is_down), (3, is_right)) if is_flipped]
                view = view.flip(turned) if turned else view
                total = total + share * views.score_logits(self.kind, net(view, eyes=eyes))
        return total
