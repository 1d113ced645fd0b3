# The default posture: each check that docs/SECURITY.md says is on by default is asserted here, and an
# assertion's message begins with the ids of its checks. Mocked: no account, no credentials, nothing
# is made.
#
#   terraform test -var-file=docs/hardened.tfvars
#
# runs this file and the others. Build the function's zip first (deno task build): without it
# each run fails with main.tf's own sentence.

mock_provider "aws" {
  source = "./tests"
}

# The JSON only shows which document goes where: the provider makes the real one.
override_data {
  target = data.aws_iam_policy_document.uploads
  values = { json = "{\"Id\":\"uploads\"}" }
}

override_data {
  target = data.aws_iam_policy_document.trust
  values = { json = "{\"Id\":\"trust\"}" }
}

override_data {
  target = data.aws_iam_policy_document.function
  values = { json = "{\"Id\":\"function\"}" }
}

# null stands for a variable's default, whatever terraform.tfvars, the environment or -var-file say.
variables {
  aws_region               = null
  environment              = null
  project_name             = null
  lambda_runtime           = null
  lambda_memory_mb         = null
  lambda_timeout_seconds   = null
  reserved_concurrency     = null
  tracing_mode             = null
  warm_up                  = null
  filter_prefix            = null
  filter_suffix            = null
  log_retention_days       = null
  noncurrent_days          = null
  force_destroy            = null
  point_in_time_recovery   = null
  deletion_protection      = null
  kms_key_arn              = null
  access_log_bucket        = null
  alarm_topic_arn          = null
  permissions_boundary_arn = null
  batch_backfill           = null
}

run "defaults" {
  command = apply

  # What the stack is made of. A resource that is absent can't be read, so the text is searched.
  assert {
    condition = jsonencode(sort([
      for names in regexall("(?m)^\\s*resource\\s+\"(\\w+)\"\\s+\"(\\w+)\"", join("\n", [for name in fileset(path.module, "*.tf") : file(name)])) : join(".", names)
      ])) == jsonencode([
      "aws_cloudwatch_log_group.function",
      "aws_cloudwatch_metric_alarm.failures_waiting",
      "aws_cloudwatch_metric_alarm.function",
      "aws_dynamodb_table.files",
      "aws_iam_role.batch",
      "aws_iam_role.function",
      "aws_iam_role_policy.batch",
      "aws_iam_role_policy.function",
      "aws_lambda_function.metadata",
      "aws_lambda_function_event_invoke_config.metadata",
      "aws_lambda_permission.uploads",
      "aws_s3_bucket.batch",
      "aws_s3_bucket.uploads",
      "aws_s3_bucket_lifecycle_configuration.uploads",
      "aws_s3_bucket_logging.uploads",
      "aws_s3_bucket_notification.uploads",
      "aws_s3_bucket_ownership_controls.uploads",
      "aws_s3_bucket_policy.batch",
      "aws_s3_bucket_policy.uploads",
      "aws_s3_bucket_public_access_block.batch",
      "aws_s3_bucket_public_access_block.uploads",
      "aws_s3_bucket_server_side_encryption_configuration.uploads",
      "aws_s3_bucket_versioning.uploads",
      "aws_sqs_queue.failures",
      "terraform_data.function_role",
      "terraform_data.stack",
    ])
    error_message = "CKV_AWS_258 CKV2_AWS_75: the stack is made of these resources and no others, so without a function URL, an ACL or a second policy."
  }

  assert {
    condition     = length(fileset(path.module, "*.tf.json")) == 0 && !can(regex("(?m)^\\s*module\\s+\"", join("\n", [for name in fileset(path.module, "*.tf") : file(name)])))
    error_message = "Resources: no module and no JSON file adds one that this test does not see."
  }

  # The bucket.
  assert {
    condition = alltrue([
      aws_s3_bucket_public_access_block.uploads.bucket == aws_s3_bucket.uploads.id,
      aws_s3_bucket_public_access_block.uploads.block_public_acls,
      aws_s3_bucket_public_access_block.uploads.block_public_policy,
      aws_s3_bucket_public_access_block.uploads.ignore_public_acls,
      aws_s3_bucket_public_access_block.uploads.restrict_public_buckets,
    ])
    error_message = "CKV_AWS_53 CKV_AWS_54 CKV_AWS_55 CKV_AWS_56 CKV2_AWS_6 AVD-AWS-0086 AVD-AWS-0087 AVD-AWS-0091 AVD-AWS-0093 AVD-AWS-0094 S3.8 S3.2 S3.3: all four settings of the bucket's public access block are on."
  }

  assert {
    condition = alltrue([
      aws_s3_bucket_ownership_controls.uploads.bucket == aws_s3_bucket.uploads.id,
      aws_s3_bucket_ownership_controls.uploads.rule[0].object_ownership == "BucketOwnerEnforced",
      !can(regex("(?m)^\\s*(acl|grant)\\s", join("\n", [for name in fileset(path.module, "*.tf") : file(name)]))),
    ])
    error_message = "CKV2_AWS_65 S3.12 CKV_AWS_20 CKV_AWS_57 CKV2_AWS_43 CKV_AWS_375 AVD-AWS-0092: ACLs are off, and none is written."
  }

  assert {
    condition = alltrue([
      aws_s3_bucket_server_side_encryption_configuration.uploads.bucket == aws_s3_bucket.uploads.id,
      jsonencode([for rule in aws_s3_bucket_server_side_encryption_configuration.uploads.rule : rule.apply_server_side_encryption_by_default]) == jsonencode([
        [{ kms_master_key_id = null, sse_algorithm = "AES256" }],
      ]),
    ])
    error_message = "CKV_AWS_19 S3.4 AVD-AWS-0088: the bucket encrypts with AES256 (SSE-S3), written out."
  }

  assert {
    condition = alltrue([
      aws_s3_bucket_versioning.uploads.bucket == aws_s3_bucket.uploads.id,
      aws_s3_bucket_versioning.uploads.versioning_configuration[0].status == "Enabled",
    ])
    error_message = "CKV_AWS_21 S3.14 AVD-AWS-0090: the bucket is versioned."
  }

  assert {
    condition = alltrue([
      aws_s3_bucket_lifecycle_configuration.uploads.bucket == aws_s3_bucket.uploads.id,
      jsonencode([for rule in aws_s3_bucket_lifecycle_configuration.uploads.rule : [rule.status, rule.noncurrent_version_expiration, rule.expiration, rule.transition]]) == jsonencode([
        [
          "Enabled",
          [{ newer_noncurrent_versions = 0, noncurrent_days = 30 }],
          [{ date = null, days = 0, expired_object_delete_marker = true }],
          [],
        ],
      ]),
    ])
    error_message = "CKV2_AWS_61 S3.10 S3.13: old versions go after 30 days, then their markers; a current object never does."
  }

  # The provider fills in an empty filter, so it is looked for in the text.
  assert {
    condition = alltrue([
      jsonencode([for rule in aws_s3_bucket_lifecycle_configuration.uploads.rule : [rule.status, rule.abort_incomplete_multipart_upload]]) == jsonencode([
        ["Enabled", [{ days_after_initiation = 7 }]],
      ]),
      can(regex("resource \"aws_s3_bucket_lifecycle_configuration\" \"uploads\" {[^}]*\n    filter {}\n", file("${path.module}/main.tf"))),
    ])
    error_message = "CKV_AWS_300: an enabled rule for all keys removes an unfinished multipart upload after 7 days."
  }

  assert {
    condition = alltrue([
      aws_s3_bucket_policy.uploads.bucket == aws_s3_bucket.uploads.id,
      aws_s3_bucket_policy.uploads.policy == data.aws_iam_policy_document.uploads.json,
      jsonencode([for s in data.aws_iam_policy_document.uploads.statement : [s.sid, s.effect, s.actions, s.not_actions, s.resources, s.not_resources, s.principals, s.not_principals, s.condition]]) == jsonencode([
        [
          "DenyPlainHttp",
          "Deny",
          ["s3:*"],
          null,
          [aws_s3_bucket.uploads.arn, "${aws_s3_bucket.uploads.arn}/*"],
          null,
          [{ identifiers = ["*"], type = "*" }],
          [],
          [{ test = "Bool", values = ["false"], variable = "aws:SecureTransport" }],
        ],
      ]),
      data.aws_iam_policy_document.uploads.source_policy_documents == null,
      data.aws_iam_policy_document.uploads.override_policy_documents == null,
    ])
    error_message = "CKV_AWS_379 S3.5 CKV_AWS_70 S3.6 CKV_AWS_93: the bucket's policy denies everybody plain HTTP and says nothing else, so it allows nobody and locks nobody out."
  }

  assert {
    condition = alltrue([
      aws_s3_bucket_notification.uploads.bucket == aws_s3_bucket.uploads.id,
      jsonencode(aws_s3_bucket_notification.uploads.lambda_function) == jsonencode([
        {
          events              = ["s3:ObjectCreated:*"]
          filter_prefix       = null
          filter_suffix       = null
          id                  = "object-created"
          lambda_function_arn = aws_lambda_function.metadata.arn
        },
      ]),
    ])
    error_message = "CKV2_AWS_62 S3.11: the bucket notifies the function of every created object."
  }

  assert {
    condition     = can(regex("^file-metadata-dev-[0-9a-f]{10}$", aws_s3_bucket.uploads.bucket))
    error_message = "AVD-AWS-0320: the bucket's name is project, environment and ten hexadecimal digits, without a dot."
  }

  assert {
    condition     = aws_s3_bucket.uploads.force_destroy
    error_message = "Destroy: the bucket is deleted with what is in it."
  }

  # The function, who may call it, and what it may do.
  assert {
    condition = alltrue([
      aws_lambda_permission.uploads.action == "lambda:InvokeFunction",
      aws_lambda_permission.uploads.function_name == aws_lambda_function.metadata.function_name,
      aws_lambda_permission.uploads.principal == "s3.amazonaws.com",
      aws_lambda_permission.uploads.source_arn == "arn:aws:s3:::${aws_s3_bucket.uploads.bucket}",
      aws_lambda_permission.uploads.source_account == local.account_id,
    ])
    error_message = "CKV_AWS_301 CKV_AWS_364 AVD-AWS-0067 Lambda.1: only this bucket, of this account, may invoke the function."
  }

  assert {
    condition     = contains(["nodejs22.x", "nodejs24.x"], aws_lambda_function.metadata.runtime)
    error_message = "CKV_AWS_363 Lambda.2: the runtime is one that AWS supports."
  }

  assert {
    condition = alltrue([
      jsonencode(aws_lambda_function.metadata.environment) == jsonencode([
        {
          variables = {
            BUCKET_NAME   = aws_s3_bucket.uploads.bucket
            NODE_OPTIONS  = "--max-semi-space-size=2 --max-old-space-size=230"
            STACK_CREATED = terraform_data.stack.input.created
            TABLE_NAME    = aws_dynamodb_table.files.name
            WARM_UP       = "on"
          }
        },
      ]),
      jsonencode([for block in regexall("(?ms)^provider .*?^}", join("\n", [for name in fileset(path.module, "*.tf") : file(name)])) : flatten(regexall("(?m)^  (\\w+)", block))]) == jsonencode([
        ["region", "default_tags"],
      ]),
    ])
    error_message = "CKV_AWS_45 CKV_AWS_41: the function's environment holds two names, a time, a switch and limits of memory, and the provider block no key."
  }

  assert {
    condition     = jsonencode(aws_lambda_function.metadata.tracing_config) == jsonencode([{ mode = "PassThrough" }])
    error_message = "CKV_AWS_50: tracing is PassThrough, which costs nothing and needs no permission (AVD-AWS-0066 and Lambda.7 want Active: see hardened.tftest.hcl)."
  }

  assert {
    condition     = length(aws_lambda_function.metadata.vpc_config) == 0
    error_message = "Lambda.5: the function is in no VPC, so it has no zones to count."
  }

  assert {
    condition = alltrue([
      jsonencode([for s in data.aws_iam_policy_document.trust.statement : [s.sid, coalesce(s.effect, "Allow"), s.actions, s.not_actions, s.resources, s.not_resources, s.principals, s.not_principals, s.condition]]) == jsonencode([
        ["LetLambdaRunIt", "Allow", ["sts:AssumeRole"], null, null, null, [{ identifiers = ["lambda.amazonaws.com"], type = "Service" }], [], []],
      ]),
      jsonencode([for s in data.aws_iam_policy_document.function.statement : [s.sid, coalesce(s.effect, "Allow"), s.actions, s.not_actions, s.resources, s.not_resources, s.principals, s.not_principals, s.condition]]) == jsonencode([
        ["ReadUploads", "Allow", ["s3:GetObject", "s3:GetObjectVersion"], null, ["${aws_s3_bucket.uploads.arn}/*"], null, [], [], [{ test = "StringEquals", values = [local.account_id], variable = "aws:ResourceAccount" }]],
        ["TellGoneFromForbidden", "Allow", ["s3:ListBucket"], null, [aws_s3_bucket.uploads.arn], null, [], [], [{ test = "StringEquals", values = [local.account_id], variable = "aws:ResourceAccount" }]],
        ["WriteRows", "Allow", ["dynamodb:DeleteItem", "dynamodb:PutItem", "dynamodb:Query"], null, [aws_dynamodb_table.files.arn], null, [], [], []],
        ["WriteOwnLogs", "Allow", ["logs:CreateLogStream", "logs:PutLogEvents"], null, ["${aws_cloudwatch_log_group.function.arn}:*"], null, [], [], []],
        ["ParkFailedEvents", "Allow", ["sqs:SendMessage"], null, [aws_sqs_queue.failures.arn], null, [], [], []],
      ]),
      data.aws_iam_policy_document.trust.source_policy_documents == null,
      data.aws_iam_policy_document.trust.override_policy_documents == null,
      data.aws_iam_policy_document.function.source_policy_documents == null,
      data.aws_iam_policy_document.function.override_policy_documents == null,
      aws_iam_role.function.assume_role_policy == data.aws_iam_policy_document.trust.json,
      aws_iam_role_policy.function.policy == data.aws_iam_policy_document.function.json,
      aws_iam_role_policy.function.role == aws_iam_role.function.id,
      aws_lambda_function.metadata.role == aws_iam_role.function.arn,
      !can(regex("(?m)^\\s*(inline_policy|managed_policy_arns)\\s", join("\n", [for name in fileset(path.module, "*.tf") : file(name)]))),
    ])
    error_message = "CKV_AWS_60 CKV_AWS_61 CKV_AWS_62 CKV_AWS_63 CKV_AWS_274 CKV_AWS_49 CKV_AWS_1 CKV_AWS_283 CKV_AWS_286 CKV_AWS_287 CKV2_AWS_40 CKV2_AWS_56 IAM.1 IAM.21 AVD-AWS-0057 AVD-AWS-0342 AVD-AWS-0345 AVD-AWS-0346 CKV_AWS_108 CKV_AWS_109 CKV_AWS_111 CKV_AWS_288 CKV_AWS_289 CKV_AWS_290 CKV_AWS_355 CKV_AWS_356 KMS.1 KMS.2: only Lambda takes the role, and its permissions are exactly these: each on the stack's own bucket, table, log or queue, and none on a key."
  }

  assert {
    condition = jsonencode([for block in regexall("(?ms)^  default_tags {.*?^  }", file("${path.module}/main.tf")) : replace(block, "/\\s+/", " ")]) == jsonencode([
      " default_tags { tags = { Project = var.project_name Environment = local.environment ManagedBy = \"terraform\" } }",
    ])
    error_message = "IAM.24 Lambda.6 DynamoDB.5 SQS.2: the provider tags every resource with Project, Environment and ManagedBy."
  }

  assert {
    condition = alltrue([
      aws_lambda_function.metadata.filename == local.zip_path,
      aws_lambda_function.metadata.source_code_hash == filebase64sha256(local.zip_path),
      jsonencode(aws_lambda_function.metadata.architectures) == jsonencode(["arm64"]),
      aws_lambda_function.metadata.memory_size == 256,
      aws_lambda_function.metadata.timeout == 30,
      aws_lambda_function.metadata.layers == null,
      length(aws_lambda_function.metadata.file_system_config) == 0,
      jsonencode([for config in aws_lambda_function.metadata.logging_config : [config.log_format, config.log_group]]) == jsonencode([["JSON", aws_cloudwatch_log_group.function.name]]),
    ])
    error_message = "Function: arm64, 256 MB, 30 seconds, the built zip pinned by its hash, no layer, no file system, its own log."
  }

  assert {
    condition = alltrue([
      aws_lambda_function_event_invoke_config.metadata.function_name == aws_lambda_function.metadata.function_name,
      aws_lambda_function_event_invoke_config.metadata.maximum_retry_attempts == 2,
      aws_lambda_function_event_invoke_config.metadata.maximum_event_age_in_seconds == 21600,
      jsonencode(aws_lambda_function_event_invoke_config.metadata.destination_config) == jsonencode([
        { on_failure = [{ destination = aws_sqs_queue.failures.arn }], on_success = [] },
      ]),
    ])
    error_message = "Failures: an event is tried three times within 6 hours, then sent to the failure queue."
  }

  # The table, the failure queue, the log and the alarms.
  assert {
    condition     = aws_dynamodb_table.files.billing_mode == "PAY_PER_REQUEST"
    error_message = "DynamoDB.1 CKV2_AWS_16: the table scales with demand."
  }

  assert {
    condition     = aws_sqs_queue.failures.sqs_managed_sse_enabled == true
    error_message = "CKV_AWS_27 SQS.1 AVD-AWS-0096: the failure queue is encrypted (SSE-SQS), written out."
  }

  assert {
    condition     = aws_sqs_queue.failures.kms_master_key_id == null
    error_message = "CKV2_AWS_73 AVD-AWS-0135: the failure queue does not use AWS's shared KMS alias."
  }

  assert {
    condition     = aws_sqs_queue.failures.policy == ""
    error_message = "CKV_AWS_72 CKV_AWS_168 CKV_AWS_387 AVD-AWS-0097 SQS.3: the failure queue has no policy that could be open."
  }

  assert {
    condition     = aws_sqs_queue.failures.message_retention_seconds == 14 * 24 * 60 * 60
    error_message = "Failures: the failure queue keeps an event for 14 days, the longest that SQS can."
  }

  assert {
    condition     = aws_cloudwatch_log_group.function.retention_in_days == 14
    error_message = "CKV_AWS_66: the function's log is kept for 14 days."
  }

  assert {
    condition     = aws_cloudwatch_metric_alarm.failures_waiting.actions_enabled != false && alltrue([for alarm in aws_cloudwatch_metric_alarm.function : alarm.actions_enabled != false])
    error_message = "CKV_AWS_319 CloudWatch.17: the alarms' actions are enabled."
  }

  assert {
    condition = alltrue([
      for alarm in concat([aws_cloudwatch_metric_alarm.failures_waiting], values(aws_cloudwatch_metric_alarm.function)) : alltrue([
        jsonencode([alarm.metric_name, alarm.namespace, alarm.statistic, alarm.dimensions]) == jsonencode({
          "${local.name}-failures-waiting"     = ["ApproximateNumberOfMessagesVisible", "AWS/SQS", "Maximum", { QueueName = aws_sqs_queue.failures.name }]
          "${local.name}-errors"               = ["Errors", "AWS/Lambda", "Sum", { FunctionName = aws_lambda_function.metadata.function_name }]
          "${local.name}-undelivered-failures" = ["DestinationDeliveryFailures", "AWS/Lambda", "Sum", { FunctionName = aws_lambda_function.metadata.function_name }]
        }[alarm.alarm_name]),
        alarm.comparison_operator == "GreaterThanThreshold",
        alarm.threshold == 0,
        alarm.treat_missing_data == "notBreaching",
      ])
    ]) && length(aws_cloudwatch_metric_alarm.function) == 2
    error_message = "Alarms: one each for an event in the failure queue, an error, and an event that could not be sent there."
  }

  # Each opt-in of docs/SECURITY.md is off.
  assert {
    condition = alltrue([
      aws_dynamodb_table.files.point_in_time_recovery[0].enabled == false,
      aws_dynamodb_table.files.deletion_protection_enabled == false,
      aws_dynamodb_table.files.server_side_encryption[0].enabled == false,
      aws_cloudwatch_log_group.function.kms_key_id == null,
      aws_lambda_function.metadata.kms_key_arn == null,
      aws_lambda_function.metadata.reserved_concurrent_executions == -1,
      aws_iam_role.function.permissions_boundary == null,
      length(aws_s3_bucket_logging.uploads) == 0,
      length(flatten([for alarm in concat([aws_cloudwatch_metric_alarm.failures_waiting], values(aws_cloudwatch_metric_alarm.function)) : [alarm.alarm_actions, alarm.ok_actions]])) == 0,
    ])
    error_message = "Opt-ins: none is on unless it is asked for."
  }

  # A null above would hide another default of these four, and a variable without one would be read
  # from terraform.tfvars.
  assert {
    condition = alltrue([
      for name in ["kms_key_arn", "access_log_bucket", "alarm_topic_arn", "permissions_boundary_arn"] :
      can(regex("(?m)^variable \"${name}\" {\n[^}]*^  default +=\\s+null$", file("${path.module}/variables.tf")))
    ])
    error_message = "Opt-ins: the variables of existing keys, buckets, topics and policies are null by default."
  }

  assert {
    condition     = jsonencode(sort(flatten(regexall("(?m)^variable \"(\\w+)\"", file("${path.module}/variables.tf"))))) == jsonencode(sort(flatten(regexall("(?m)^  (\\w+) += null$", file("${path.module}/tests/main.tftest.hcl")))))
    error_message = "Variables: this test sets each to null."
  }
}

run "changed_function" {
  command = apply

  variables {
    lambda_memory_mb = 129
    warm_up          = false
  }

  assert {
    condition = jsonencode([
      aws_lambda_function.metadata.environment[0].variables.NODE_OPTIONS,
      aws_lambda_function.metadata.environment[0].variables.WARM_UP,
      aws_lambda_function.metadata.environment[0].variables.STACK_CREATED,
      ]) == jsonencode([
      "--max-semi-space-size=2 --max-old-space-size=116",
      "off",
      terraform_data.stack.input.created,
    ])
    error_message = "Function: the heap is limited to 90 % of the memory, warm_up switches the warm-up off, and the stack keeps its age."
  }
}

# AVD-AWS-0320, from the other side
run "a_dot_in_the_name_is_refused" {
  command = plan

  variables {
    project_name = "file.metadata"
  }

  expect_failures = [var.project_name]
}

# CKV_AWS_363 and Lambda.2, from the other side
run "an_old_runtime_is_refused" {
  command = plan

  variables {
    lambda_runtime = "nodejs18.x"
  }

  expect_failures = [var.lambda_runtime]
}

run "filters_are_form_encoded" {
  command = plan

  variables {
    filter_prefix = "dt=2024-01-01/ä b+"
    filter_suffix = ".c&v"
  }

  assert {
    condition     = one(aws_s3_bucket_notification.uploads.lambda_function).filter_prefix == "dt%3D2024-01-01/%C3%A4+b%2B"
    error_message = "Filters: S3 takes a prefix form-encoded, the slash as it is."
  }

  assert {
    condition     = one(aws_s3_bucket_notification.uploads.lambda_function).filter_suffix == ".c%26v"
    error_message = "Filters: S3 takes a suffix form-encoded."
  }
}
