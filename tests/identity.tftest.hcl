# The stack's identity: made once, kept whatever changes, and the source of every name. Mocked, as
# main.tftest.hcl is.

mock_provider "aws" {
  source = "./tests"
}

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

# As in main.tftest.hcl.
variables {
  aws_region     = null
  environment    = null
  project_name   = null
  lambda_runtime = null
}

# 54 characters. The first run: later the state's own prefix would be the reason, too.
run "a_name_too_long_is_refused" {
  command = plan

  variables {
    project_name = "file-metadata-with-a-name-too-long-by-a-character"
  }

  expect_failures = [terraform_data.stack]
}

run "made" {
  command = apply

  assert {
    condition = jsonencode([
      aws_s3_bucket.uploads.bucket,
      aws_dynamodb_table.files.name,
      aws_sqs_queue.failures.name,
      aws_cloudwatch_log_group.function.name,
      aws_iam_role.function.name,
      aws_lambda_function.metadata.function_name,
      ]) == jsonencode([
      terraform_data.stack.input.name,
      terraform_data.stack.input.name,
      "${terraform_data.stack.input.name}-failures",
      "/aws/lambda/${terraform_data.stack.input.name}",
      terraform_data.stack.input.name,
      terraform_data.stack.input.name,
    ])
    error_message = "Names: every name comes from the stack's own, so two stacks share nothing."
  }

  assert {
    condition     = timecmp(terraform_data.stack.input.created, timeadd(timestamp(), "-1h")) > 0
    error_message = "Identity: the state keeps when the stack was made."
  }
}

run "other_variables_change_no_name" {
  command = apply

  variables {
    lambda_memory_mb    = 512
    noncurrent_days     = 7
    filter_prefix       = "incoming/"
    deletion_protection = true
  }

  assert {
    condition     = aws_lambda_function.metadata.memory_size == 512 && terraform_data.stack.input.name == run.made.lambda_function_name
    error_message = "Identity: a change of other variables keeps the name."
  }
}

run "another_environment_is_refused" {
  command = plan

  variables {
    environment = "prod"
  }

  expect_failures = [terraform_data.stack]
}

run "another_project_is_refused" {
  command = plan

  variables {
    project_name = "other"
  }

  expect_failures = [terraform_data.stack]
}

run "another_region_is_refused" {
  command = plan

  variables {
    aws_region = "eu-central-1"
  }

  expect_failures = [terraform_data.stack]
}

# Even then nothing that holds data is replaced.
run "a_lost_identity_replaces_no_data" {
  command = apply

  plan_options {
    replace = [terraform_data.stack]
  }

  assert {
    condition = terraform_data.stack.input.name != run.made.lambda_function_name && jsonencode([
      aws_s3_bucket.uploads.bucket,
      aws_dynamodb_table.files.name,
      aws_sqs_queue.failures.name,
      ]) == jsonencode([
      run.made.lambda_function_name,
      run.made.lambda_function_name,
      "${run.made.lambda_function_name}-failures",
    ])
    error_message = "Identity: bucket, table and failure queue keep their names without it."
  }
}
