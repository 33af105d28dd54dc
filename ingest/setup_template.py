"""What an AWS account needs for `thingline run`, as a CloudFormation template. Pure.

Rules that write lifecycle and registry events to a queue, an error action that keeps what a rule could not write there,
and two sets of permissions: the rules' own, and those of whoever runs the ingester. Nothing may do more than it must.
"""

from __future__ import annotations

from typing import Any

from ingest.iot import TURN_ON

SQL_VERSION = "2016-03-23"
KEPT_S = 14 * 24 * 3600  # SQS's most: so long the ingester may be away without a gap

# Filters end in #: a client id may hold a slash (FACTS: lifecycle events). Registry events are off until they are
# switched on (`commands`).
RULES = {
    "Presence": "SELECT * FROM '$aws/events/presence/#'",
    "Things": "SELECT * FROM '$aws/events/thing/#'",
    "ThingTypes": "SELECT * FROM '$aws/events/thingTypeAssociation/#'",
    "ThingGroups": "SELECT * FROM '$aws/events/thingGroupMembership/#'",
}

TURN_ON_EVENTS = (
    "aws iot update-event-configurations --event-configurations '"
    '{"THING":{"Enabled":true},"THING_TYPE_ASSOCIATION":{"Enabled":true},'
    '"THING_GROUP_MEMBERSHIP":{"Enabled":true}}\''
)


def template(name: str) -> dict[str, Any]:
    """Make the template; `name` begins the names of all that it makes: letters, digits and hyphens."""
    queues = {"Events": f"{name}-events", "Errors": f"{name}-errors", "DeadLetters": f"{name}-dead-letters"}
    return {
        "AWSTemplateFormatVersion": "2010-09-09",
        "Description": "Lifecycle and registry events of AWS IoT, on their way to thingline run",
        "Resources": {
            **{logical: _queue(queue, logical) for logical, queue in queues.items()},
            "RuleRole": _rule_role(),
            **{
                f"{logical}Rule": _rule(f"{name}_{logical}".replace("-", "_"), sql)
                for logical, sql in RULES.items()
            },
            "IngesterPolicy": _ingester_policy(f"{name}-ingester"),
        },
        "Outputs": {
            "EventsQueueUrl": {
                "Description": "thingline run --sqs URL",
                "Value": {"Ref": "Events"},
            },
            "ErrorsQueueUrl": {
                "Description": "What a rule could not write; a second --sqs reads it",
                "Value": {"Ref": "Errors"},
            },
            "IngesterPolicyArn": {
                "Description": "Attach it to the role that thingline runs as",
                "Value": {"Ref": "IngesterPolicy"},
            },
        },
    }


def commands(name: str) -> list[str]:
    """List the AWS CLI commands that make the stack, and switch on what no template can."""
    return [
        f"aws cloudformation deploy --stack-name {name} --template-file {name}.json --capabilities CAPABILITY_IAM",
        f"aws cloudformation describe-stacks --stack-name {name} --query 'Stacks[0].Outputs'",
        TURN_ON_EVENTS,
        TURN_ON,
    ]


def _arn(logical: str) -> dict[str, Any]:
    return {"Fn::GetAtt": [logical, "Arn"]}


def _queue(queue: str, logical: str) -> dict[str, Any]:
    properties: dict[str, Any] = {
        "QueueName": queue,
        "MessageRetentionPeriod": KEPT_S,
        "SqsManagedSseEnabled": True,
    }
    if logical != "DeadLetters":  # what was received a hundred times: the ingester itself gives no message up
        properties["RedrivePolicy"] = {"deadLetterTargetArn": _arn("DeadLetters"), "maxReceiveCount": 100}
    return {
        "Type": "AWS::SQS::Queue",
        "Properties": properties,
        "DeletionPolicy": "Retain",  # it may hold what nobody has read yet
        "UpdateReplacePolicy": "Retain",
    }


def _rule_role() -> dict[str, Any]:
    trusted = {
        "Effect": "Allow",
        "Principal": {"Service": "iot.amazonaws.com"},
        "Action": "sts:AssumeRole",
        "Condition": {"StringEquals": {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}},
    }
    send = {"Effect": "Allow", "Action": "sqs:SendMessage", "Resource": [_arn("Events"), _arn("Errors")]}
    return {
        "Type": "AWS::IAM::Role",
        "Properties": {
            "AssumeRolePolicyDocument": _document(trusted),
            "Policies": [{"PolicyName": "send", "PolicyDocument": _document(send)}],
        },
    }


def _rule(name: str, sql: str) -> dict[str, Any]:
    def to(logical: str) -> dict[str, Any]:
        return {
            "Sqs": {
                "QueueUrl": {"Ref": logical},
                "RoleArn": _arn("RuleRole"),
                "UseBase64": False,
            }
        }

    return {
        "Type": "AWS::IoT::TopicRule",
        "Properties": {
            "RuleName": name,
            "TopicRulePayload": {
                "Sql": sql,
                "AwsIotSqlVersion": SQL_VERSION,
                "RuleDisabled": False,
                "Actions": [to("Events")],
                "ErrorAction": to("Errors"),
            },
        },
    }


def _ingester_policy(name: str) -> dict[str, Any]:
    receive = {
        "Effect": "Allow",
        "Action": [
            "sqs:ReceiveMessage",
            "sqs:DeleteMessage",
            "sqs:ChangeMessageVisibility",
            "sqs:GetQueueAttributes",
        ],
        "Resource": [_arn("Events"), _arn("Errors")],
    }
    index = {"Fn::Sub": "arn:${AWS::Partition}:iot:${AWS::Region}:${AWS::AccountId}:index/AWS_Things"}
    things = {"Fn::Sub": "arn:${AWS::Partition}:iot:${AWS::Region}:${AWS::AccountId}:thing/*"}
    check: list[dict[str, Any]] = [
        {"Effect": "Allow", "Action": "iot:SearchIndex", "Resource": index},
        {"Effect": "Allow", "Action": "iot:GetThingConnectivityData", "Resource": things},
        {"Effect": "Allow", "Action": "iot:ListThings", "Resource": "*"},  # takes no narrower one
    ]
    return {
        "Type": "AWS::IAM::ManagedPolicy",
        "Properties": {
            "Description": f"{name}: receive events, and ask whether things are connected",
            "PolicyDocument": _document(receive, *check),
        },
    }


def _document(*statements: dict[str, Any]) -> dict[str, Any]:
    return {"Version": "2012-10-17", "Statement": list(statements)}
