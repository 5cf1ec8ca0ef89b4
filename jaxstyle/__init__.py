"""Neural style transfer in JAX: a photo and a painting in, a picture out.

The public names are listed in `__init__.pyi` and imported when they are first used, so that
`import jaxstyle` is instant and touches nothing: no device, no flag, no folder.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
