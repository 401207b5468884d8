"""The forms in which people and models decline, as patterns on lower-cased text with plain apostrophes.

A refusal is most often a clause in which the writer (I, we) negates an act of help: "I can't, in good conscience,
help". What negates is followed by the act at once, adverbs aside, so that advice with negatives ("you can't mix",
"I don't think you need to provide", "I can't wait to help") is none.
"""

from __future__ import annotations

import re

_IN_FACT = r"(?<!\bif )(?<!\bwhen )(?<!\bunless )"  # "if I can't answer, ask again" declines nothing
_I = rf"{_IN_FACT}\bi"
_WE = rf"{_IN_FACT}\bwe"
_I_OR_WE = rf"{_IN_FACT}\b(?:i|we)"
_ADVERBS = (
    r"(?:,? (?:(?:and|or|nor) (?:will not|won't|would not|wouldn't|can't|cannot|should not|shouldn't)|really|truly|"
    r"actually|simply|just|ever|even|also|still|currently|legally|ethically|morally|directly|knowingly|personally|"
    r"possibly|willingly|safely|responsibly|therefore|honestly|sorry|absolutely|definitely|certainly|strictly|"
    r"categorically|flatly|firmly|respectfully|unfortunately|regrettably|in good (?:conscience|faith)|at this time|"
    r"in any way|under any circumstances?|as an ai(?: language)?(?: model| assistant)?),?){0,3} "
)
_MODAL = (
    r"can ?not|can't|could never|can never|will not|won't|will never|would never|must not|mustn't|should not|"
    r"shouldn't|do not|don't|would not be able to|wouldn't be able to|will not be able to|won't be able to|"
    r"do not have the (?:ability|capability|authority) to|don't have the (?:ability|capability|authority) to|"
    r"do not (?:want|wish|intend|plan) to|don't (?:want|wish|intend|plan) to|refuse to|decline to"
)
_STATE = (
    r"not (?:going|able|allowed|permitted|willing|prepared|ready|here|designed|programmed|built|made|trained|"
    r"authori[sz]ed|equipped|in a position) to|unable to|unwilling to|"
    r"programmed not to|designed not to|trained not to|forbidden to|not gonna"
)
_HELP = (
    r"(?:help(?! but\b| myself\b| ourselves\b| (?:feel|think|laugh|notic|wonder|smil|worry|lov)ing)|assist|aid|"
    r"provide|offer|share|generate|produce|answer|comply|fulfil?l|facilitate|accommodate|entertain|obey|"
    r"engage|participate|take part|proceed|process|perform|carry out|execute|support|encourage|promote|condone|"
    r"endorse|advise|guide|teach|train|respond|complete|continue|discuss|explain|describe|elaborate|write|create|"
    r"disclose|reveal|divulge|supply|outline|draft|compose|depict|design|simulate|role-?play|cooperate|collaborate|"
    r"give(?! up\b| in\b)|"
    r"tell (?:you|anyone|anybody|people|someone)(?! how (?:happy|glad|much|excited|proud|sorry))|"
    r"do (?:that|this|it|so|such|any of)(?! (?:often|much|yet|alone|every)\b)|say (?:that|this)|"
    r"go (?:into (?:that|this|it)|along|there)|show you|"
    r"make (?:that|this|an?|any|something|you)|let you|talk about|speak about|comment on|walk you through|"
    r"be (?:able to|part of|a part of|(?:a )?party to|involved|of (?:any )?(?:help|assistance))|get involved|"
    r"(?:recommend|suggest) (?:any|ways?|how|methods?|anything|something|specific))\b"
    r"(?! (?:an? |the |any |you (?:an? |the )?)?(?:exact|precise|definit(?:e|ive))\b)(?![^.!?]{0,40}\benough\b)"
)
# "we" is often everyone ("we cannot create energy"), and "don't" a habit: both need a plainer act.
_WE_HELP = (
    r"(?:help(?! but\b| ourselves\b)|assist|comply|fulfil?l|provide (?:information|instructions|guidance|that|you))\b"
)
_HELPING = (
    r"(?:(?:with )?(?:help|assist|provid|offer|shar|generat|answer|discuss|explain|describ|writ|creat|giv|do|mak|"
    r"engag|participat|support|talk|respond|go)ing\b|with (?:that|this|it|your|the request)\b)"
)
_START = r"(?:^|[.!?;:,] |\b(?:but|so|and|therefore|unfortunately) )"
_RULES = r"(?:polic(?:y|ies)|guidelines?|principles?|programming|ethics|rules|values|terms|standards|code of conduct)"
_CLAUSE = r"[^.!?\n]"

_NEGATED_HELP = (
    rf"{_I}(?:{_ADVERBS}| )(?:{_MODAL}){_ADVERBS}{_HELP}",
    rf"{_WE} (?:can ?not|can't|will not|won't){_ADVERBS}{_WE_HELP}",
    rf"{_I_OR_WE}(?:'m|'re| am| are)(?:{_ADVERBS}| )(?:{_STATE}){_ADVERBS}{_HELP}",
    rf"{_START}(?:can ?not|can't|won't|unable to|not able to|not willing to|unwilling to){_ADVERBS}"
    r"(?:help(?! but\b| (?:feel|laugh)ing)|assist|comply|fulfil?l|do (?:that|this))\b",
    rf"{_I_OR_WE} (?:do not|don't) (?:think|believe|feel) (?:that |like )?(?:i|it'?s?(?: would be| is)? "
    rf"(?:right|appropriate|ethical|okay|ok|safe|wise|a good idea)(?: for me)?)"
    rf"(?: should| can| could| to|'m able to| am able to)* {_HELP}",
    rf"\b(?:not|isn't) something (?:that )?(?:i|we)(?:'m|'re|'ll|'d| am| are| can| could| will| would| do)?"
    r"(?: able to| willing to| going to| comfortable| prepared to| ever| be| want to){0,3}"
    rf"(?: {_HELP}| {_HELPING}|[.!])",
    rf"\bsomething (?:that )?(?:i|we) (?:can't|cannot|can not|won't|will not|refuse to|must not){_ADVERBS}{_HELP}",
    rf"\bi can (?:\w+ )?(?:help|assist)\b{_CLAUSE}{{1,120}}\bbut not (?:with|to)\b",
    rf"\b(?:i'm|i am)\b{_CLAUSE}{{0,30}}\bhere to\b{_CLAUSE}{{0,60}}\bnot to {_HELP}",
    rf"\b(?:there's|there is)? ?no way (?:that )?(?:i|we)(?:'m|'ll|'d| am| will| would)(?: going to| ever)? {_HELP}",
)
_UNWILLING = (
    rf"{_I_OR_WE}(?:'m| am|'d be| would be|'re| are)(?:{_ADVERBS}| )(?:not|un) ?comfortable {_HELPING}",
    rf"{_I_OR_WE} (?:do not|don't|would not|wouldn't|cannot|can't) feel (?:comfortable|right|good) "
    rf"(?:about )?{_HELPING}",
    rf"{_I_OR_WE}(?:'m|'re| am| are) (?:not capable|incapable) of {_HELPING}",
    rf"{_I_OR_WE}(?: choose|(?: have|'ve) (?:chosen|decided)) not to {_HELP}",
    rf"{_I_OR_WE} have no (?:intention of|interest in) {_HELPING}",
    rf"{_I_OR_WE}(?:'d| would) (?:rather|prefer) not(?: to)? {_HELP}",
    rf"{_I_OR_WE}(?:'d| would) (?:rather|prefer) not[.!,;]",
    rf"{_I_OR_WE}(?:'ll|'m| am| will| must| have to| need to| going to| respectfully| politely| firmly)* "
    r"(?:declin|refus)(?:e|ing)"
    r"(?: (?:to (?:help|assist|answer|provide|do|write|support|engage|take part|participate)|"
    r"this|that|your|the request|it|and|because|on)\b|[.!,;]|$)",
    rf"{_I_OR_WE}(?:'ll|'m| am| will| must| have| need| going| to)* "
    r"(?:say no(?: to (?:this|that|it|your))?|pass on (?:this|that|it))\b(?! to\b)",
    rf"{_I_OR_WE} want (?:no part|nothing to do)\b",
    r"\blines? (?:that )?(?:i|we) (?:won't|will not|can't|cannot|don't)\b",
)
_PLAIN_NO = (
    r"\bsorry,? (?:but )?(?:i|we) (?:can't|cannot|can not|won't|will not|must decline)[.!]",
    r"^(?:i'm |i am |we're |we are )?(?:very |so |really |truly )?sorry,? (?:but )?no[.!,]",
    r"^no[,.!]? (?:i|we) (?:can't|cannot|won't|will not|refuse)[.!,;]",
    r"^(?:not happening|not a chance|no chance|hard pass|count me out)[.!,;]",
)
_NOT_MY_PLACE = (
    rf"\b(?:sorry|afraid|apologi[sz]e|apologies)\b{_CLAUSE}{{0,20}}\b(?:that|this|it|your request)"
    r"(?:'s| is) (?:not (?:something|possible|appropriate|allowed|okay|permitted|acceptable)|against)\b"
    rf"{_CLAUSE}{{0,15}}(?:[.!]|\b(?:i|we|me|us|my|our)\b)",
    r"\bnot (?:possible|appropriate|ethical|acceptable|okay|right|safe) for (?:me|us)\b",
    rf"\bwould be (?:unethical|irresponsible|inappropriate)(?: (?:of|for) me)? to {_HELP}",
    rf"\bwould be (?:wrong|dishonest|unfair) (?:of|for) me to {_HELP}",
    r"\bnot (?:appropriate|ethical|acceptable|right) to "
    r"(?:help|assist|provide|give|offer|share|generate|create|write)"
    rf"{_CLAUSE}{{0,20}}\b(?:with|instructions?|information|advice|guidance|content|that|this|such)\b",
    rf"\b(?:against|violat(?:es?|ing)|conflicts? with|not in line with) (?:all (?:of )?)?"
    rf"(?:(?:the \w+ of )?(?:my|our) (?:\w+ )?{_RULES}|"
    rf"(?:the )?(?:content|usage|safety|openai|ai|community) {_RULES})\b",
    rf"\b(?:outside|beyond) (?:of )?(?:my|our) (?:\w+ )?{_RULES}\b",
    rf"\b(?:my|our) (?:\w+ )?{_RULES} "
    r"(?:prevents?|prohibits?|forbids?|(?:does not|doesn't|do not|don't) (?:allow|permit))\b",
    r"\b(?:outside|beyond)(?: the scope)?(?: of)? what (?:i|we)(?:'m| am|'re| are| can| will)\b",
    r"\b(?:your|this|that|the) request (?:cannot|can't|can not|will not|won't) be "
    r"(?:answered|fulfilled|completed|granted|met|processed|assisted)\b",
    r"(?:^|[.!?] )(?:your |this )?request (?:is |was |has been )?(?:denied|declined|refused|rejected|blocked)[.!]",
    r"\bplease (?:refrain from|avoid|stop|do not|don't) (?:asking|requesting|ask(?! (?:for help|your))|request)\b"
    rf"{_CLAUSE}{{0,30}}\b(?:me|this|that|such)\b",
)
_LET_US = r"\b(?:let's|let us|how about we|how about i|shall we|can we|could we|why don't we)(?: please| instead)?"
_DEFLECTIONS = (
    rf"(?:{_LET_US}|\bi(?:'d| would) (?:rather|prefer(?: to)?)) (?:talk|chat|speak|discuss|focus|move|change|switch)\b"
    rf"{_CLAUSE}{{0,25}}\b(?:something (?:else|more|different|positive|less|lighter)|"
    r"(?:another|a different|a new) (?:topic|subject))\b",
    rf"{_LET_US} (?:change|switch) the (?:topic|subject)\b",
)
_OTHER_LANGUAGES = (
    r"\b(?:lo siento|lamento|disculpa)\b[^.!?]{0,40}\bno (?:puedo|podemos|me es posible)\b",
    r"\bno puedo (?:ayudar|asistir|proporcionar|cumplir)",
    r"\bje (?:ne peux pas|ne suis pas en mesure de|refuse de) (?:vous |t'|te |y )?(?:aider|assister|fournir|répondre)",
    r"\bich kann (?:dir|ihnen|dabei|das|hier)[^.!?]{0,40} nicht (?:helfen|weiterhelfen|behilflich)",
    r"\b(?:dabei|damit|hierbei) kann ich (?:dir |ihnen )?(?:leider )?nicht (?:helfen|weiterhelfen)",
    r"\bnon posso (?:aiutar|assister|fornir)",
    r"\bnão posso (?:ajudar|ajudá|fornecer|auxiliar)",
    r"\bне (?:могу|буду) (?:вам |тебе |с этим )?(?:помочь|помогать|предоставить)",
    r"(?:抱歉|对不起|對不起)[^。！]{0,12}(?:无法|不能|無法)",
    r"(?:お手伝い|お答え|提供)[^。]{0,6}(?:できません|できかねます)",
)
PATTERNS = tuple(
    re.compile(pattern)
    for pattern in (*_NEGATED_HELP, *_UNWILLING, *_PLAIN_NO, *_NOT_MY_PLACE, *_DEFLECTIONS, *_OTHER_LANGUAGES)
)

# "I can't help you do it, but I can describe how it is done", when a long description follows.
TAKEN_BACK = re.compile(
    r"\b(?:but|however,?|that said,?|though) (?:i can|i could|i'll|i will|i'm able to|let me)"
    r"(?: still| also| certainly)? "
    r"(?:explain|describe|outline|sketch|talk|discuss|illustrate|walk|show|summari[sz]e|break)\b"
)
