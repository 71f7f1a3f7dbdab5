//! Answers to questions for names: an address that stands for the name where it may be reached, and otherwise that
//! there is no such name.
//!
//! No question leaves the server as it came: what may be reached is looked up as for any connection, and no other
//! record is ever asked for. So a question carries nothing out but the name of a host that is allowed.

use simple_dns::rdata::{A, RData};
use simple_dns::{CLASS, Packet, PacketFlag, QCLASS, QTYPE, Question, RCODE, ResourceRecord, TYPE};

use super::{Denial, Link, Protocol, Verdict};
use crate::target::{self, Host};

/// How long an answer may be kept, in seconds. After a restart of the server the address has to be asked for again.
const TTL: u32 = 30;
/// The port that a name is looked up for: whoever may be dialled there is somebody.
const PORT: u16 = 443;

/// The longest question, in bytes: what fits any network in one datagram.
pub const MAX_QUESTION: usize = 1_232;

/// Whether a message has no more in it than a question has. What is in it refers to other parts of it, so reading one
/// with much in it takes far longer than its length.
fn is_small(message: &[u8]) -> bool {
    let Some((head, _)) = message.split_first_chunk::<12>() else {
        return false;
    };
    let count = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
    let (questions, answers, authorities, more) = (count(4), count(6), count(8), count(10));
    message.len() <= MAX_QUESTION && questions <= 2 && answers == 0 && authorities == 0 && more <= 1
}

impl Link {
    /// The answer to a message; `None` for what deserves none.
    pub async fn answer_dns(&self, message: &[u8]) -> Option<Vec<u8>> {
        if self.end.is_cancelled() || !is_small(message) {
            return None;
        }
        let query = Packet::parse(message).ok()?;
        if query.has_flags(PacketFlag::RESPONSE) {
            return None;
        }
        let mut answer = query.clone().into_reply();
        answer.answers.clear();
        answer.name_servers.clear();
        answer.additional_records.clear();
        *answer.opt_mut() = None;
        answer.set_flags(PacketFlag::RECURSION_AVAILABLE);
        let found = match query.questions.as_slice() {
            [question] if query.opcode() == simple_dns::OPCODE::StandardQuery => self.look_up(question).await,
            [_] => Err(RCODE::NotImplemented),
            _ => Err(RCODE::FormatError),
        };
        match found {
            Ok(record) => answer.answers.extend(record),
            Err(code) => *answer.rcode_mut() = code,
        }
        answer.build_bytes_vec().ok()
    }

    async fn look_up<'a>(&self, question: &Question<'a>) -> Result<Option<ResourceRecord<'a>>, RCODE> {
        if question.qclass != QCLASS::CLASS(CLASS::IN) {
            return Err(RCODE::Refused);
        }
        let asked = question.qname.to_string();
        let name = match target::host(&asked) {
            Ok(Host::Name(name)) => name,
            Ok(Host::Address(_)) | Err(_) => {
                self.decide(Protocol::Dns, "", 0, &Verdict::Denied(Denial::NoHost));
                return Err(RCODE::NameError);
            }
        };
        let verdict = if self.allowed().admits(&Host::Name(name.clone())) {
            match self.look_up_name(&name, PORT).await {
                Ok(()) => Verdict::Allowed,
                Err(error) => error.into(),
            }
        } else {
            Verdict::Denied(Denial::NotListed)
        };
        self.decide(Protocol::Dns, &name, 0, &verdict);
        match verdict {
            Verdict::Allowed => {}
            Verdict::Denied(_) => return Err(RCODE::NameError),
            // What it was can't be told from what the resolver says; either way there is no address.
            Verdict::Failed(_) => return Err(RCODE::ServerFailure),
        }
        let is_address = matches!(question.qtype, QTYPE::TYPE(TYPE::A) | QTYPE::ANY);
        Ok(is_address.then(|| {
            let address = A::from(self.names.address(&name));
            ResourceRecord::new(question.qname.clone(), CLASS::IN, TTL, RData::A(address))
        }))
    }
}
