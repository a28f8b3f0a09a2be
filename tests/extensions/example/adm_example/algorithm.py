"""An algorithm on top of the ERM of either host."""


def centred_class(erm):
    class Centred(erm):
        def update(self, minibatches, unlabeled=None):
            share = self.hparams["centring"]
            return super().update([(x - share * x.mean(0), y) for x, y in minibatches], unlabeled)

    return Centred
