"""Every error that slg-wds raises on purpose.

SlgWdsError
├── UsageError                options that cannot be, alone or together
├── MissingDependencyError    an optional package is not installed
├── ImageSourceError          the images as a whole
│   ├── NoImagesError             no image where images were expected
│   ├── NoTargetsError            class folders were needed and there are none
│   ├── DuplicateKeyError         two images share one key
│   └── ImageShardError           a tar of images is truncated or corrupt
├── ImageError                one image
│   ├── ImageDecodeError          its bytes are not an image that can be read
│   ├── ImageGoneError            it was planned, and its folder no longer has it
│   ├── ImageTooLargeError        more pixels or bytes than the limit
│   └── ImageChangedError         its bytes or its size are not those that were labelled
├── TeacherError
│   ├── UnknownArchError          no model of that name
│   ├── WeightsError              weights that do not fit, or cannot be read safely
│   └── TeacherOutputError        not [N, classes], or not finite
├── DeviceError               a GPU failed: this process must end, another may succeed
├── FormatError               bytes that are not what FORMAT.md says
│   ├── RecordError
│   ├── ShardError
│   │   ├── ShardTruncatedError
│   │   └── ChecksumError
│   ├── ManifestError             plan, slg.json, index, _info.json
│   └── UnsupportedFeatureError   a newer version or a required feature
├── LabelSetError
│   ├── NotALabelSetError
│   ├── IncompleteSetError
│   ├── IdentityMismatchError     each difference named
│   ├── ReferenceSetError         crops cannot be taken from that reference
│   └── RuleError                 a rule of recovery that the stored columns cannot give
├── InteropError              label files of FKD and a label set that do not go together
│   └── LabelFileError            one file: unreadable, unsafe, or not what the others are
├── ReplayError               a loader or its state that cannot be
└── StoreError
    ├── NotFoundError
    ├── PermissionDeniedError
    ├── StoreFullError
    ├── UnsupportedStoreError     a store or file system without what atomic commits need
    ├── InvalidNameError          a name that is not a plain relative one within its store
    ├── ObjectTooLargeError       more bytes than its reader allows
    ├── OutOfRangeError           bytes asked for past the end of an object
    └── StoreUnavailableError     no answer in time, or faults past all retries

A message says what is wrong; `url`, `shard` and `key` say where; `hint` says what to do. All survive pickling.
"""

from __future__ import annotations

from typing import Any

from slg_wds.masking import masked


class SlgWdsError(Exception):
    """Base of all errors of this package. Secrets in its texts are masked from the start, so none can hold one.

    Attributes:
        message: what is wrong, one line.
        url, shard, key: where, each None when it does not apply.
        hint: what to do about it, or None.
    """

    def __init__(
        self,
        message: str,
        *,
        url: str | None = None,
        shard: str | None = None,
        key: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(masked(message))
        self.message = message
        self.url = url
        self.shard = shard
        self.key = key
        self.hint = hint

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, masked(value) if isinstance(value, str) else value)

    def __str__(self) -> str:
        places = [f"{name} {value}" for name in ("key", "shard", "url") if (value := getattr(self, name))]
        text = f"{self.message} ({', '.join(places)})" if places else self.message
        return f"{text}; {self.hint}" if self.hint else text

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (type(self), self.message, dict(vars(self))))

    def located(
        self, *, url: str | None = None, shard: str | None = None, key: str | None = None
    ) -> SlgWdsError:
        """Fill in the places that are still unknown and return self, for `raise error.located(...)`."""
        self.url = self.url or url
        self.shard = self.shard or shard
        self.key = self.key or key
        return self


def _rebuild(kind: type[SlgWdsError], message: str, state: dict[str, Any]) -> SlgWdsError:
    error = kind.__new__(kind)
    Exception.__init__(error, message)
    error.__dict__.update(state)
    return error


class UsageError(SlgWdsError): ...


class MissingDependencyError(SlgWdsError): ...


class ImageSourceError(SlgWdsError): ...


class NoImagesError(ImageSourceError): ...


class NoTargetsError(ImageSourceError): ...


class DuplicateKeyError(ImageSourceError): ...


class ImageShardError(ImageSourceError): ...


class ImageError(SlgWdsError): ...


class ImageDecodeError(ImageError): ...


class ImageGoneError(ImageError): ...


class ImageTooLargeError(ImageError): ...


class ImageChangedError(ImageError): ...


class TeacherError(SlgWdsError): ...


class UnknownArchError(TeacherError): ...


class WeightsError(TeacherError): ...


class TeacherOutputError(TeacherError): ...


class DeviceError(SlgWdsError): ...


class FormatError(SlgWdsError): ...


class RecordError(FormatError): ...


class ShardError(FormatError): ...


class ShardTruncatedError(ShardError): ...


class ChecksumError(ShardError): ...


class ManifestError(FormatError): ...


class UnsupportedFeatureError(FormatError): ...


class LabelSetError(SlgWdsError): ...


class NotALabelSetError(LabelSetError): ...


class IncompleteSetError(LabelSetError): ...


class IdentityMismatchError(LabelSetError): ...


class ReferenceSetError(LabelSetError): ...


class RuleError(LabelSetError): ...


class InteropError(SlgWdsError): ...


class LabelFileError(InteropError): ...


class ReplayError(SlgWdsError): ...


class StoreError(SlgWdsError): ...


class NotFoundError(StoreError): ...


class PermissionDeniedError(StoreError): ...


class StoreFullError(StoreError): ...


class UnsupportedStoreError(StoreError): ...


class InvalidNameError(StoreError): ...


class ObjectTooLargeError(StoreError): ...


class OutOfRangeError(StoreError): ...


class StoreUnavailableError(StoreError): ...
