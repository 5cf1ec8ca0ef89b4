"""The public names, one import a line."""

from . import classification as classification
from . import color as color
from . import convolution as convolution
from . import features as features
from . import images as images
from . import methods as methods
from . import metrics as metrics
from . import weights as weights
from .config import PRESETS as PRESETS
from .config import StylizeConfig as StylizeConfig
from .config import preset as preset
from .distributions import GaussianStatistics as GaussianStatistics
from .distributions import gaussian_statistics as gaussian_statistics
from .distributions import mmd as mmd
from .distributions import wasserstein2 as wasserstein2
from .distributions import wasserstein2_target as wasserstein2_target
from .errors import UserError as UserError
from .features import vgg as vgg
from .losses import Moments as Moments
from .losses import channel_moments as channel_moments
from .losses import content_loss as content_loss
from .losses import gram_matrix as gram_matrix
from .losses import moments_loss as moments_loss
from .losses import perceptual_loss as perceptual_loss
from .losses import style_loss as style_loss
from .losses import total_variation as total_variation
from .methods.gatys import Iterate as Iterate
from .methods.gatys import stylize as stylize
from .methods.gatys_sheet import contact_sheet as contact_sheet
from .training.config import DataConfig as DataConfig
from .training.config import OptimizerConfig as OptimizerConfig
from .training.config import TrainConfig as TrainConfig
from .training.config import load_config as load_config
from .training.loop import train as train
from .transfer import adain as adain
from .transfer import region_moments as region_moments

__version__: str
