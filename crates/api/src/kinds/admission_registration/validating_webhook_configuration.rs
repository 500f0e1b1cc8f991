//! ValidatingWebhookConfiguration

use super::webhook::Webhooks;
use crate::kind::Kind;

pub(crate) fn kind() -> Kind {
    Webhooks::kind(&Webhooks { mutating: false }, "ValidatingWebhookConfiguration", "validatingwebhookconfigurations")
}
