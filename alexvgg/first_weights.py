"""The net of a run at step 0: random, or from its parent's final weights."""

import safetensors.torch

from alexvgg.config import RunSpec
from alexvgg.data.store import MissingKeyError, Store
from alexvgg.engine.checkpoint import verified
from alexvgg.errors import InputError
from alexvgg.init import ALEXNET_BIASED, TRANSPLANTED, LayerOrigin, initialise, transplant
from alexvgg.keys import final_weights_key
from alexvgg.models import Net, build
from alexvgg.recipes import RECIPES
from alexvgg.runs import check_parent, read_run


def first_weights(spec: RunSpec, storage: Store) -> tuple[Net, list[LayerOrigin]]:
    """The net at step 0 and each layer's origin.

    Raises InputError if the parent isn't finished, has learned nothing, or doesn't fit.
    """
    m = spec.model
    net = build(m.name, num_classes=m.num_classes, width=m.width, crop=m.crop, dropout=spec.train.dropout)
    biases = dict.fromkeys(ALEXNET_BIASED, spec.init.alexnet_bias) if m.name.startswith("alexnet") else {}
    initialise(net, spec.init.kind, std=spec.init.std, seed=spec.train.seed, biases=biases)
    if spec.parent is None:
        _, origins = transplant({}, net.state_dict(), layers=())
        return net, origins
    try:
        parent = read_run(storage, spec.parent.run)
    except MissingKeyError:
        parent = None
    if parent is None or parent.weights is None:
        raise InputError(
            f"{spec.name} starts from {spec.parent.run}, which isn't finished in {storage.url}. Train that first, with "
            "the same --set, which holds for parents, too; or start from another run: --parent."
        )
    check_parent(parent, spec.name)
    weights = verified(storage, final_weights_key(parent.name), parent.weights)
    layers = None if spec.parent.how == "copy" else TRANSPLANTED
    state, origins = transplant(safetensors.torch.load(weights), net.state_dict(), layers=layers)
    net.load_state_dict(state)
    return net, origins


def better_start(spec: RunSpec) -> str:
    """What to try if the net doesn't leave chance (`alexvgg.engine.guards.Learning`)."""
    if spec.model.name.startswith("alexnet") and spec.init.alexnet_bias == 1:
        return "Start AlexNet's biases at 0.1 (--set init.alexnet_bias=0.1), as Caffe's reproduction does."
    if spec.model.name.startswith("vgg") and spec.parent is None and spec.init.kind == "gaussian":
        glorot = "Glorot's weights (--init glorot), which the authors recommend in a note to section 3.1"
        recipe = RECIPES.get(spec.recipe)
        if recipe is None or recipe.parent is None:
            return f"Start from {glorot}."
        return f"Start from the trained net A, as the paper does (--init auto, the default), or from {glorot}."
    return f"Check the labels and the learning rate{'' if spec.init.kind == 'glorot' else ', and try --init glorot'}."
